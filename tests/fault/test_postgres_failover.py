"""A primary that is lost under load: nothing is, where its standby must confirm; where it lagged, everybody is told."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg

from service.store.postgres.reconciliation import reconcile
from service.store.restoring import LEFT_OUT
from telemetry.audit.verify import Report, read_copy, verify
from tests.fault.cluster import await_checkpoint
from tests.fault.cluster_load import ClusterLoad
from tests.fault.cluster_nodes import Cluster
from tests.fault.cluster_oracle import judge, require_receipts
from tests.support.poll_until import poll_until
from tests.support.postgres_standby import Pair
from tests.support.service import Service

PATIENCE_S = 120.0


def _cluster(folder: Path, pair: Pair, *sizes: int) -> Cluster:
    servers, workers, relays = sizes
    database = (pair.primary, pair.create_database())
    now_ns = time.time_ns()  # noqa: TID251 - of a ledger that begins empty
    return Cluster(folder, 0, now_ns, database=database, sizes=(servers, workers, relays))


def _load(cluster: Cluster) -> ClusterLoad:
    def on_their_way() -> int:
        try:
            return len(cluster.rows("SELECT FROM jobs WHERE status IN ('draft_ready', 'queued', 'running')"))
        except psycopg.OperationalError:
            return sys.maxsize

    return ClusterLoad(cluster.urls, cluster.admin_key, cluster.executions, on_their_way)


def _await(load: ClusterLoad, condition: Callable[[], bool], what: str) -> None:
    def is_so() -> bool:
        load.require_sound()
        return condition()

    poll_until(is_so, what, PATIENCE_S)


def _await_receipts(load: ClusterLoad, more: int) -> None:
    goal = len(load.receipts) + more
    _await(load, lambda: len(load.receipts) >= goal, f"{more} more receipts")


def _receipts(cluster: Cluster, count: int) -> Sequence[Mapping[str, Any]]:
    """Return the receipts of at least so many requests, none of which is under way any more."""
    with _load(cluster) as load:
        _await_receipts(load, count)
    return load.receipts


def test_a_standby_that_must_confirm_takes_over_in_the_middle_of_load(confirmed: Pair, tmp_path: Path) -> None:
    """Killed with commits on their way, the primary is followed by all processes by themselves, and nothing is lost."""
    with _cluster(tmp_path, confirmed, 2, 2, 1) as cluster:
        with _load(cluster) as load:
            _fail_over_under(load, cluster, confirmed)
            await_checkpoint(cluster, load)
        cluster.settle()
        require_receipts(cluster, load.receipts)
        judged = judge(cluster)
        assert cluster.restarts == 0
    assert judged.runs > 0


def test_after_a_failover_to_a_standby_that_lagged_no_number_is_used_twice(lagging: Pair, tmp_path: Path) -> None:
    """Processes that go on write no checkpoint and say why, also when they stop; told of it, the ledger goes on."""
    with _cluster(tmp_path, lagging, 2, 1, 1) as cluster:
        kept = [*_receipts(cluster, 10)]
        lagging.await_following()
        lagging.standby.disconnect()
        ((known,),) = _of_standby(lagging, "SELECT max(number) FROM audit_checkpoints")
        lost = _receipts(cluster, 20)
        poll_until(lambda: _last_delivered(cluster) >= known + 2, "checkpoints to be delivered", PATIENCE_S)
        poll_until(lambda: _undelivered(cluster) == 0, "records to be delivered", PATIENCE_S)
        lagging.fail_over()

        kept += _receipts(cluster, 10)
        poll_until(lambda: all("was set back" in one for one in _readiness(cluster)), "all to say so", PATIENCE_S)
        assert cluster.rows("SELECT max(number) FROM audit_checkpoints") == [(known,)]
        for node in cluster.nodes.values():
            node.stop()
        assert cluster.rows("SELECT max(number) FROM audit_checkpoints") == [(known,)]
        gone = _missing(cluster, lost)
        assert gone
        assert _missing(cluster, kept) == []

        done = _told_of_it(cluster, tmp_path)
        assert done["first_checkpoint"] > known + LEFT_OUT
        for node in cluster.nodes.values():
            node.start()
        kept += _receipts(cluster, 10)
        cluster.settle()
        require_receipts(cluster, kept)
        assert list(reconcile(cluster.url, cluster.secret)) == []
        report = _verified(cluster)
        assert (report.verdict, report.findings) == ("intact", ())
        assert report.lost >= len(gone)
        archived = (cluster.archive / "sunk.jsonl").read_text()
        assert [receipt for receipt in (*kept, *lost) if receipt["record_id"] not in archived] == []


def _fail_over_under(load: ClusterLoad, cluster: Cluster, pair: Pair) -> None:
    """Lose the primary with commits on their way, and go on until clients had enough answers from its successor."""
    _await_receipts(load, 30)
    # What is committed from here on is on the primary's disk, and on its way.
    receiver = pair.standby.freeze()
    _await(load, lambda: pair.waiting_commits() >= 2, "commits that wait for the standby")
    pair.primary.kill()
    os.kill(receiver, signal.SIGCONT)
    for url in cluster.urls:
        answer = httpx.get(f"{url}/v1/jobs", headers={"Authorization": f"Bearer {cluster.admin_key}"}, timeout=30)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
    pair.standby.promote()
    _await_receipts(load, 60)


def _of_standby(pair: Pair, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pair.standby.url("audit")) as session:
        return session.execute(sql.encode()).fetchall()


def _missing(cluster: Cluster, receipts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the records that clients were told of and the database does not have."""
    ids = [receipt["record_id"] for receipt in receipts]
    found = {row[0] for row in cluster.rows("SELECT record_id FROM audit_records WHERE record_id = ANY(%s)", ids)}
    return [one for one in ids if one not in found]


def _verified(cluster: Cluster) -> Report:
    return verify(read_copy([cluster.archive]), public_keys=[cluster.signer.public_key])


def _last_delivered(cluster: Cluster) -> int:
    last = _verified(cluster).last_checkpoint
    return last.number if last else 0


def _undelivered(cluster: Cluster) -> int:
    ((count,),) = cluster.rows(
        "SELECT count(*) FROM audit_streams JOIN delivery_cursors USING (stream_id)"
        " WHERE audit_streams.number > delivery_cursors.number"
    )
    return int(str(count))


def _readiness(cluster: Cluster) -> list[str]:
    """Return what each server says of its checkpoints."""
    headers = {"Authorization": f"Bearer {cluster.admin_key}"}
    answers = [httpx.get(f"{url}/health/ready", headers=headers, timeout=30).json() for url in cluster.urls]
    return [json.dumps(answer) for answer in answers]


def _told_of_it(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Tell the database that it was set back, as soon as the leases of lost processes have ended."""
    operator = Service(folder / "operator", cluster.environment)
    said: list[dict[str, Any]] = []

    def is_told() -> bool:
        done = operator.command("migrate", "--after-restore", "--json", check=False)
        assert done.returncode == 0 or "try again in 10 s" in done.stderr, done.stderr
        said.extend(json.loads(done.stdout)["restored"] for _ in range(done.returncode == 0))
        return done.returncode == 0

    poll_until(is_told, "the leases of before to end", PATIENCE_S)
    return said[0]
