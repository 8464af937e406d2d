"""A primary that is lost under load: nothing is, where its standby must confirm; where it lagged, everybody is told."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.sql import SQL

from service.cli.main import main
from service.errors import BrokenLedgerError
from service.ports import Receipt, Transaction
from service.store.postgres.opening import migrate_database
from service.store.postgres.reads import PostgresReads
from service.store.postgres.reconciliation import reconcile
from service.store.restoring import LEFT_OUT
from telemetry.audit.verify import Report, read, verify
from tests.fault.cluster_load import ClusterLoad
from tests.fault.cluster_nodes import Cluster
from tests.fault.cluster_oracle import judge, require_receipts
from tests.support.collector import poll_until
from tests.support.postgres_standby import Pair, running_pair
from tests.support.postgres_stores import PostgresStore
from tests.support.service import Service
from tests.support.stores import new_job

PATIENCE_S = 120.0


@pytest.fixture
def confirmed() -> Iterator[Pair]:
    """A primary whose commits wait for its standby."""
    with running_pair(synchronous=True) as pair:
        yield pair


@pytest.fixture
def lagging() -> Iterator[Pair]:
    """A primary that waits for nobody, and its standby."""
    with running_pair(synchronous=False) as pair:
        yield pair


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


def _waiting(pair: Pair, database: str = "audit") -> int:
    """Return how many sessions are within a commit that waits for the standby."""
    with psycopg.connect(pair.primary.url(database), autocommit=True) as session:
        ((count,),) = session.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event = 'SyncRep' AND application_name = 'auditrace' AND query = 'COMMIT'"
        ).fetchall()
    return int(count)


def test_a_standby_that_must_confirm_takes_over_in_the_middle_of_load(confirmed: Pair, tmp_path: Path) -> None:
    """Killed with commits on their way, the primary is followed by all processes by themselves, and nothing is lost."""
    with _cluster(tmp_path, confirmed, 2, 2, 1) as cluster:
        with _load(cluster) as load:
            _fail_over_under(load, confirmed)
        cluster.settle()
        require_receipts(cluster, load.receipts)
        judged = judge(cluster)
        assert cluster.restarts == 0
    assert judged.runs > 0
    assert judged.checkpoints > 3


def test_a_commit_that_no_standby_got_is_made_again_on_the_one_that_takes_over(confirmed: Pair, tmp_path: Path) -> None:
    """It is on the disk of the primary alone, and was not acknowledged: its lane makes the change once more."""
    url = confirmed.create_database()
    migrate_database(url)
    store = PostgresStore.opened(url, tmp_path, 1, lanes=1)
    lane = store.lane()
    before = _commit(store, lane.submit)
    confirmed.standby.disconnect()
    transition = store.transition(new_job())
    pending = lane.submit(lambda transaction: transaction.save(transition))
    poll_until(lambda: _waiting(confirmed) == 1, "the commit to wait for the standby", PATIENCE_S)
    assert not pending.done()
    confirmed.fail_over()
    receipt = pending.result(PATIENCE_S)
    assert (receipt.stream_id != before.stream_id, receipt.sequence_number) == (True, 2)
    assert store.rows("SELECT version, record_id FROM job_versions") == [(1, receipt.record_id)]
    writer = store.checkpoints(lane)
    writer.write()
    writer.write()
    report = store.verify()
    assert (report.verdict, report.findings) == ("intact", ())
    store.close()


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


def test_a_process_whose_last_records_are_gone_signs_nothing_any_more(lagging: Pair, tmp_path: Path) -> None:
    """Though no checkpoint is missing: a stream that others hold more of would be signed as ended before that."""
    url = lagging.create_database()
    migrate_database(url)
    store = PostgresStore.opened(url, tmp_path, 1, lanes=1)
    lane = store.lane()
    writer = store.checkpoints(lane)
    _commit(store, lane.submit)
    writer.write()
    lagging.await_following()
    lagging.standby.disconnect()
    lost = _commit(store, lane.submit)
    lagging.fail_over()
    after = _commit(store, lane.submit)
    assert (after.stream_id != lost.stream_id, after.sequence_number) == (True, 2)
    assert store.rows("SELECT count(*) FROM audit_records WHERE record_id = ?", lost.record_id) == [(0,)]
    for _ in range(2):
        with pytest.raises(BrokenLedgerError, match=f"record {lost.sequence_number} of stream {lost.stream_id}.*gone"):
            writer.write()
    lane.close(writer.write_last)
    assert store.rows("SELECT number FROM audit_checkpoints") == [(1,)]
    store.close()


def test_reads_are_made_where_writes_are(confirmed: Pair) -> None:
    """Of several hosts a standby is not read from, even the first: it may lag, and lanes hold no locks there."""
    url = confirmed.create_database()
    migrate_database(url)
    confirmed.await_following()
    reads = PostgresReads(confirmed.url("audit", attributes=""))
    is_standby = "SELECT pg_is_in_recovery()"
    assert reads._pool.run(lambda session: session.execute(is_standby).fetchall()) == [(False,)]
    confirmed.fail_over()
    assert reads.outbox().depth == 0
    assert reads._pool.run(lambda session: session.info.host) == str(confirmed.standby.folder)
    reads.close()


def test_doctor_says_whether_a_failover_can_lose_commits(
    lagging: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It warns while the primary waits for nobody, and when nobody is there to be waited for; else it does not."""
    monkeypatch.setenv("AUDITRACE_DATABASE", lagging.create_database())

    def durability() -> tuple[str, str]:
        main(["doctor", "--json"])
        checks: list[dict[str, str]] = json.loads(capsys.readouterr().out)["checks"]
        (found,) = [(one["status"], one["detail"]) for one in checks if one["check"] == "durability"]
        return found

    status, detail = durability()
    assert (status, "synchronous_standby_names is empty" in detail) == ("wrong", True)
    assert "loses the last commits" in detail
    lagging.require_confirmation()
    assert durability() == ("ok", "an acknowledged commit is on disk")
    lagging.standby.disconnect()
    poll_until(lambda: durability()[0] == "wrong", "the standby to be missed", PATIENCE_S)
    assert "none of the standbys of synchronous_standby_names (standby) is connected" in durability()[1]


def _fail_over_under(load: ClusterLoad, pair: Pair) -> None:
    """Lose the primary with commits on their way, and go on until clients had enough answers from its successor."""
    _await_receipts(load, 30)
    ((receiver,),) = pair.standby.execute(SQL("SELECT pid FROM pg_stat_wal_receiver"))
    # What is committed from here on is on the primary's disk, and on its way.
    os.kill(receiver, signal.SIGSTOP)
    _await(load, lambda: _waiting(pair) >= 2, "commits that wait for the standby")
    pair.primary.kill()
    os.kill(receiver, signal.SIGCONT)
    refused = load.refused
    _await(load, lambda: load.refused >= refused + 4, "clients to be told to try later")
    pair.standby.promote()
    _await_receipts(load, 60)


def _commit(store: PostgresStore, submit: Callable[..., Any]) -> Receipt:
    def work(transaction: Transaction) -> Receipt:
        return transaction.save(store.fact())

    receipt: Receipt = submit(work).result(PATIENCE_S)
    return receipt


def _of_standby(pair: Pair, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pair.standby.url("audit")) as session:
        return session.execute(sql.encode()).fetchall()


def _missing(cluster: Cluster, receipts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the records that clients were told of and the database does not have."""
    ids = [receipt["record_id"] for receipt in receipts]
    found = {row[0] for row in cluster.rows("SELECT record_id FROM audit_records WHERE record_id = ANY(%s)", ids)}
    return [one for one in ids if one not in found]


def _verified(cluster: Cluster) -> Report:
    return verify(read([cluster.archive]), public_keys=[cluster.signer.public_key])


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
    answers = [httpx.get(f"{url}/health/ready", timeout=30).json() for url in cluster.urls]
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
