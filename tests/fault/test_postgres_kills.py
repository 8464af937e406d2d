"""Three servers, three workers and two relays on one PostgreSQL: any of them, and PostgreSQL, may die at any moment."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
import pytest

from service.bootstrap.databases import database_of
from service.store.postgres.opening import migrate_database
from telemetry.audit.verify import read_copy, verify
from tests.support.ledger_maker import KEY
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer, running_server
from tests.support.processes import start_process

SEED: Final = 20261125
KILLS: Final = 20
ROLES: Final = ("serve",) * 3 + ("work",) * 3 + ("relay",) * 2
POSTGRES: Final = len(ROLES)


class _Node:
    """A process, and what it said."""

    def __init__(self, role: str, url: str, folder: Path, instance: int) -> None:
        self.role = role
        self.said: list[str] = []
        command = [sys.executable, "-m", "tests.fault.postgres_node", role, url, str(folder), str(instance)]
        with (folder / f"{role}-{instance}.log").open("wb") as log:
            self._process = start_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def kill(self) -> None:
        """End it at whatever instruction it is."""
        if self._process.poll() is None:
            self._process.kill()
        self._wait()

    def stop(self) -> None:
        """Let it finish."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._wait()
        assert self._process.returncode == 0

    def _wait(self) -> None:
        self._process.wait()
        self._listening.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                self.said.append(line.decode().rstrip())


class _Deployment:
    """The processes, and everything that they and their predecessors said."""

    def __init__(self, server: PostgresServer, url: str, folder: Path) -> None:
        self.server, self.url, self.folder = server, url, folder
        self._instances = 0
        self._before: list[str] = []
        self.nodes = [self._start(role) for role in ROLES]

    def said(self, word: str) -> list[list[str]]:
        """Return the statements that begin with this word."""
        lines = [*self._before, *(line for node in self.nodes for line in node.said)]
        return [rest for first, *rest in map(str.split, lines) if first == word]

    def close(self) -> None:
        """End what is left."""
        for node in self.nodes:
            node.kill()

    def kill(self, which: int) -> None:
        """Kill a process, or PostgreSQL, and start it again."""
        if which == POSTGRES:
            self.server.kill()
            self.server.start()
            return
        node = self.nodes[which]
        node.kill()
        self._before += node.said
        self.nodes[which] = self._start(node.role)

    def stop(self, *roles: str) -> None:
        """Let all processes of these roles finish."""
        for node in self.nodes:
            if node.role in roles:
                node.stop()

    def _start(self, role: str) -> _Node:
        self._instances += 1
        return _Node(role, self.url, self.folder, self._instances)


@pytest.fixture
def durable_server() -> Iterator[PostgresServer]:
    """A server that writes to disk what it says it has written."""
    with running_server(fsync=True) as server:
        yield server


def test_whatever_dies_nothing_is_lost_and_nothing_is_done_twice(
    durable_server: PostgresServer, tmp_path: Path
) -> None:
    """After random kills every receipt is there, every version has its record, and the ledger verifies everywhere."""
    url = durable_server.create_database("template0")
    migrate_database(url)
    draws = random.Random(SEED)
    with closing(_Deployment(durable_server, url, tmp_path)) as deployment:
        for _ in range(KILLS):
            progress = len(deployment.said("ack")) + draws.randrange(1, 25)
            poll_until(lambda at=progress: len(deployment.said("ack")) >= at, "the deployment to go on", 120)
            deployment.kill(draws.randrange(POSTGRES + 1))
        deployment.stop("serve")
        with psycopg.connect(url, autocommit=True) as session:
            poll_until(lambda: _unfinished(session) == 0, "all runs to end, and those of the dead to be reclaimed", 240)
        deployment.stop("work")
        with psycopg.connect(url, autocommit=True) as session:
            # A relay that stops leaves alone what is under the lease of one that was killed a moment ago.
            poll_until(lambda: _undelivered(session) == 0, "the leases of dead relays to end, and delivery", 120)
        deployment.stop("relay")
    _require_receipts(deployment)
    _require_whole_jobs(url)
    _require_single_runs(deployment)
    _require_intact(url, tmp_path)


def _unfinished(session: psycopg.Connection[Any]) -> int:
    ((count,),) = session.execute("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')").fetchall()
    return int(count)


def _undelivered(session: psycopg.Connection[Any]) -> int:
    ((count,),) = session.execute(
        "SELECT coalesce(sum(audit_streams.number - delivery_cursors.number), 0)"
        " FROM audit_streams JOIN delivery_cursors USING (stream_id)"
    ).fetchall()
    return int(count)


def _require_receipts(deployment: _Deployment) -> None:
    with psycopg.connect(deployment.url) as session:
        rows = session.execute("SELECT record_id, stream_id, number, hash FROM audit_records").fetchall()
    stored = {(record_id, stream_id, str(number), record_hash) for record_id, stream_id, number, record_hash in rows}
    receipts = {tuple(receipt) for receipt in deployment.said("ack")}
    assert len(receipts) > KILLS
    assert receipts <= stored


def _require_whole_jobs(url: str) -> None:
    """Each version has the one record that states it, and each stream its numbers without gaps."""
    with psycopg.connect(url) as session:
        (counts,) = session.execute(
            "SELECT (SELECT sum(version) FROM jobs), (SELECT count(*) FROM job_versions),"
            " (SELECT count(*) FROM audit_record_keys WHERE versioned_job IS NOT NULL)"
        ).fetchall()
        gaps = session.execute(
            "SELECT stream_id FROM audit_record_keys GROUP BY stream_id HAVING count(*) <> max(number)"
        ).fetchall()
    assert len(set(map(int, counts))) == 1
    assert gaps == []


def _require_single_runs(deployment: _Deployment) -> None:
    """Each run was claimed once and ended once, by the worker that claimed it or as unknown."""
    claims = Counter(map(tuple, deployment.said("claim")))
    assert claims
    assert set(claims.values()) == {1}
    with psycopg.connect(deployment.url) as session:
        rows = session.execute("SELECT job_id, number, document FROM job_runs").fetchall()
    runs = {(job_id, str(number)): msgspec.json.decode(document)["status"] for job_id, number, document in rows}
    assert claims.keys() <= runs.keys()
    ended = {tuple(run) for run in deployment.said("end")}
    assert {runs[run] for run in ended} <= {"succeeded"}
    assert set(runs.values()) <= {"succeeded", "unknown"}


def _require_intact(url: str, folder: Path) -> None:
    """Database and archive verify, and the archive holds everything."""
    keys = [KEY.public_key()]
    database = verify(database_of(url).records(), public_keys=keys)
    assert (database.verdict, database.findings) == ("intact", ())
    archive = verify(read_copy([folder / "archive"]), public_keys=keys)
    # A relay that was killed while it wrote leaves a line that nobody was told of; whoever writes next mends the file.
    findings = [finding for finding in archive.findings if finding.code != "torn_line"]
    assert (archive.verdict, findings) == ("intact", [])
    assert archive.records == database.records
