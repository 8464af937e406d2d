"""A node that is paused within its transaction, and wakes up when its stream was closed, adds nothing behind that.

Two `auditrace serve` on one PostgreSQL: one is paused with SIGSTOP while the database waits for a lock of the test's,
so that the moment is sure; the other writes checkpoints, and closes the streams of who gives no sign of life.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from service.bootstrap.databases import database_of
from telemetry.audit.verify import verify
from tests.support.keys import public_key
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.postgres_clocks import RunningLedgerClock
from tests.support.service import Service

PATIENCE_S = 120.0
LEASE_S = 11
_KEY = 4711
_WAITING_FUNCTION = f"""
    CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0
    AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared({_KEY}); RETURN NEW; END $$
"""
_WITHIN_ITS_WORK = """
    CREATE TRIGGER cancelling_waits BEFORE INSERT ON job_versions
    FOR EACH ROW WHEN (NEW.status = 'cancelled') EXECUTE FUNCTION wait_for_the_test()
"""
_WITHIN_ITS_COMMIT = """
    CREATE CONSTRAINT TRIGGER cancelling_waits AFTER INSERT ON job_versions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.status = 'cancelled') EXECUTE FUNCTION wait_for_the_test()
"""


class Pair:
    """A node to be paused, and one that closes its streams meanwhile."""

    def __init__(self, url: str, folder: Path, callers: ThreadPoolExecutor) -> None:
        self.url = url
        self.folder = folder
        # One lane, so that the one that was paused is the one that does its work again.
        settings = {"AUDITRACE_DATABASE": url, "AUDITRACE_CHECKPOINT_INTERVAL": "1s", "AUDITRACE_LANES": "1"}
        parts = ["--no-worker", "--no-relay"]
        self.closer, self.paused = Service(folder, settings, parts), Service(folder, settings, parts)
        self.paused.log = folder / "paused.log"
        self._callers = callers

    def begin(self) -> None:
        """Start both; the one that closes writes checkpoints from then on, and the other has a stream."""
        self.closer.start()
        poll_until(lambda: self.rows("SELECT count(*) FROM audit_checkpoints") != [(0,)], "a checkpoint", PATIENCE_S)
        self.paused.start()
        self.create()

    def end(self) -> None:
        """Stop both, whatever state they are in."""
        for node in (self.paused, self.closer):
            if node.process is not None:
                node.process.send_signal(signal.SIGCONT)
                assert node.stop() == 0, node.log.read_text(errors="replace")[-4000:]

    def create(self) -> dict[str, Any]:
        """Create a job at the node to be paused."""
        return self.paused.client().create("greet", name="you")

    def cancel(self, job_id: str) -> "Future[httpx.Response]":
        """Ask the node to be paused to cancel a job."""
        headers = {"Authorization": f"Bearer {self.paused.admin()}"}
        url = f"{self.paused.url}/v1/jobs/{job_id}/cancel"
        return self._callers.submit(httpx.post, url, headers=headers, timeout=PATIENCE_S)

    def rows(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database."""
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(sql.encode(), values).fetchall()

    def streams(self) -> Mapping[str, tuple[int, int]]:
        """Return of each stream of the paused node up to where it goes, and whether it is closed."""
        sql = "SELECT stream_id, number, closed FROM audit_streams WHERE owner <> %s AND number > 0"
        return {stream_id: (number, closed) for stream_id, number, closed in self.rows(sql, self._writer())}

    def pause(self, holder: psycopg.Connection[Any]) -> int:
        """Stop the node while a session of its waits for a lock of `holder`, and return that session's process id."""
        waiting = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        pids: list[int] = []

        def is_paused() -> bool:
            before = self.rows(waiting, holder.info.backend_pid)
            if not before:
                return False
            self._stop()
            pids[:] = [pid for (pid,) in self.rows(waiting, holder.info.backend_pid)]
            if [(pid,) for pid in pids] == before:
                return True
            # It gave up and tries again: not within its transaction at this moment.
            self.go_on()
            return False

        poll_until(is_paused, "the node to wait within its transaction", PATIENCE_S)
        (pid,) = pids
        return pid

    def go_on(self) -> None:
        """Wake the node up."""
        assert self.paused.process is not None
        self.paused.process.send_signal(signal.SIGCONT)

    def await_close(self) -> Mapping[str, tuple[int, int]]:
        """Wait until all streams of the paused node are closed, and return where each ends."""
        poll_until(lambda: all(closed for _, closed in self.streams().values()), "the streams to close", PATIENCE_S)
        return self.streams()

    def is_connected(self, pid: int) -> bool:
        """Tell whether a session is there."""
        return self.rows("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == [(1,)]

    def require_intact(self, ended: Mapping[str, tuple[int, int]], *receipts: Mapping[str, Any]) -> None:
        """Check that nothing was added to streams that ended, that no receipt was in vain, and the ledger itself."""
        self.end()
        assert {stream_id: self._last(stream_id) for stream_id in ended} == {
            stream_id: number for stream_id, (number, _) in ended.items()
        }
        for receipt in receipts:
            assert receipt["stream_id"] not in ended
            place = "SELECT stream_id, number, hash FROM audit_records WHERE record_id = %s"
            stated = (receipt["stream_id"], receipt["sequence_number"], receipt["record_hash"])
            assert self.rows(place, receipt["record_id"]) == [stated]
        key = public_key(self.folder / "keys" / "signing.pem")
        report = verify(database_of(self.url).records(), public_keys=[key])
        assert (report.verdict, report.findings) == ("intact", ())

    def _stop(self) -> None:
        process = self.paused.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        # Returns when the last of its threads stands still.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def _last(self, stream_id: str) -> int:
        ((number,),) = self.rows("SELECT max(number) FROM audit_records WHERE stream_id = %s", stream_id)
        return int(number)

    def _writer(self) -> str:
        ((owner,),) = self.rows("SELECT owner FROM leases WHERE name = 'checkpoint'")
        return str(owner)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """Threads of clients; the last one ends when the nodes have answered or ended."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def pair(postgres_server: PostgresServer, tmp_path: Path, callers: ThreadPoolExecutor) -> Iterator[Pair]:
    """Two nodes at work on a database of the test's own."""
    url = postgres_server.create_database()
    nodes = Pair(url, tmp_path, callers)
    try:
        nodes.begin()
        yield nodes
    finally:
        nodes.end()
    postgres_server.drop_database(url)


@contextmanager
def _holding(pair: Pair, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold locks for as long as the block lasts, in a transaction that is open at its end."""
    with psycopg.connect(pair.url) as session:
        for statement in statements:
            session.execute(statement.encode())
        yield session


def test_a_node_that_sleeps_within_its_transaction_is_let_go_and_finds_out(pair: Pair) -> None:
    """Its session is ended, its streams are closed, others go on with the job; it does its part in another stream."""
    job = pair.create()
    with _holding(pair, f"SELECT FROM jobs WHERE job_id = '{job['id']}' FOR UPDATE") as holder:
        pending = pair.cancel(job["id"])
        session = pair.pause(holder)
    # It has the row now, and would keep it from everybody else for as long as it sleeps.
    poll_until(lambda: not pair.is_connected(session), "the sleeping session to be ended", PATIENCE_S)
    ended = pair.await_close()
    assert len(ended) == 1
    cancelled = pair.closer.client().post(f"/v1/jobs/{job['id']}/cancel")
    assert not pending.done()
    pair.go_on()
    answer = pending.result(PATIENCE_S)
    assert answer.status_code == 200, answer.text
    versions = pair.rows("SELECT version, record_id FROM job_versions WHERE job_id = %s ORDER BY version", job["id"])
    assert versions == [(1, job["audit"]["record_id"]), (2, cancelled["audit"]["record_id"])]
    pair.require_intact(ended, answer.json()["audit"])


@pytest.mark.parametrize(
    ("trigger", "is_left_connected"),
    [
        pytest.param(_WITHIN_ITS_WORK, True, id="before its stream moves"),
        pytest.param(_WITHIN_ITS_COMMIT, False, id="within the commit that moves its stream"),
    ],
)
def test_a_node_that_wakes_up_behind_the_close_of_its_stream_does_its_work_again(
    pair: Pair, trigger: str, is_left_connected: bool
) -> None:
    """Fenced where its session lives on; where it held its stream's row, the checkpoint ended its session first."""
    job = pair.create()
    with closing(RunningLedgerClock(pair.url)) as clock:
        with _holding(pair, f"SELECT pg_advisory_xact_lock({_KEY})") as holder:
            with psycopg.connect(pair.url, autocommit=True) as session:
                session.execute(_WAITING_FUNCTION.encode())
                session.execute(trigger.encode())
            pending = pair.cancel(job["id"])
            pid = pair.pause(holder)
            clock.advance(LEASE_S)
            ended = pair.await_close()
            assert len(ended) == 1
            assert pair.is_connected(pid) == is_left_connected
        assert not pending.done()
        pair.go_on()
        answer = pending.result(PATIENCE_S)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()["audit"]
    assert pair.rows("SELECT record_id FROM job_versions WHERE job_id = %s AND version = 2", job["id"]) == [
        (receipt["record_id"],)
    ]
    pair.require_intact(ended, receipt)
    assert ("was left for another" in pair.paused.log.read_text()) == is_left_connected
