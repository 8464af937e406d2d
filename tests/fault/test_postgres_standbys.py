"""A standby beside the primary: what is not confirmed, what is gone with the primary, and what is said of both."""

import itertools
import json
from concurrent.futures import Future
from pathlib import Path

import psycopg
import pytest

from service.cli.main import main
from service.errors import BrokenLedgerError
from service.ports import Receipt
from service.store.postgres.connection import connect
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.opening import durability, migrate_database
from service.store.postgres.reads import PostgresReads
from service.store.writability import WatchedLedger
from tests.support.poll_until import poll_until
from tests.support.postgres_standby import PATIENCE_S, Pair
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import new_job


def _opened(pair: Pair, folder: Path) -> PostgresStore:
    url = pair.create_database()
    migrate_database(url)
    return PostgresStore.opened(url, folder, 1, lanes=1)


def _create(store: PostgresStore, lane: PostgresLanes, job_id: str) -> Future[Receipt]:
    transition = store.transition(new_job(job_id))
    return lane.submit(lambda transaction: transaction.save(transition))


def _require_once(store: PostgresStore, lane: PostgresLanes, *receipts: Receipt) -> None:
    """Check that each change was made once, by its record, and that the ledger holds together."""
    made = store.rows("SELECT version, record_id FROM job_versions ORDER BY job_id")
    assert made == [(1, receipt.record_id) for receipt in receipts]
    writer = store.checkpoints(lane)
    writer.write()
    writer.write()
    report = store.verify()
    assert (report.verdict, report.findings) == ("intact", ())
    store.close()


def test_a_commit_that_no_standby_got_is_made_again_on_the_one_that_takes_over(confirmed: Pair, tmp_path: Path) -> None:
    """It is on the disk of the primary alone, and was not acknowledged: its lane makes the change once more."""
    store = _opened(confirmed, tmp_path)
    lane = store.lane()
    before = _create(store, lane, "job-1").result(PATIENCE_S)
    confirmed.standby.disconnect()
    pending = _create(store, lane, "job-2")
    poll_until(lambda: confirmed.waiting_commits() == 1, "the commit to wait for the standby", PATIENCE_S)
    assert not pending.done()
    confirmed.fail_over()
    receipt = pending.result(PATIENCE_S)
    assert (receipt.stream_id != before.stream_id, receipt.sequence_number) == (True, 2)
    _require_once(store, lane, before, receipt)


def test_a_commit_that_the_standby_got_is_found_on_it(confirmed: Pair, tmp_path: Path) -> None:
    """It took the record and lost the primary before it could say so: the caller gets the receipt of that record."""
    store = _opened(confirmed, tmp_path)
    lane = store.lane()
    before = _create(store, lane, "job-1").result(PATIENCE_S)
    receiver = confirmed.standby.freeze()
    pending = _create(store, lane, "job-2")
    poll_until(lambda: confirmed.waiting_commits() == 1, "the commit to wait for the standby", PATIENCE_S)
    assert not pending.done()
    confirmed.fail_over_behind_the_last_commit(receiver)
    receipt = pending.result(PATIENCE_S)
    assert (receipt.stream_id, receipt.sequence_number) == (before.stream_id, before.sequence_number + 1)
    _require_once(store, lane, before, receipt)


def test_a_process_whose_last_records_are_gone_signs_nothing_any_more(lagging: Pair, tmp_path: Path) -> None:
    """Though no checkpoint is missing: a stream that others hold more of would be signed as ended before that."""
    store = _opened(lagging, tmp_path)
    lane = store.lane()
    writer = store.checkpoints(lane)
    _create(store, lane, "job-1").result(PATIENCE_S)
    writer.write()
    lagging.await_following()
    lagging.standby.disconnect()
    lost = _create(store, lane, "job-2").result(PATIENCE_S)
    lagging.fail_over()
    after = _create(store, lane, "job-3").result(PATIENCE_S)
    assert (after.stream_id != lost.stream_id, after.sequence_number) == (True, 2)
    assert store.rows("SELECT count(*) FROM audit_records WHERE record_id = ?", lost.record_id) == [(0,)]
    for _ in range(2):
        with pytest.raises(BrokenLedgerError, match=f"record {lost.sequence_number} of stream {lost.stream_id}.*gone"):
            writer.write()
    lane.close(writer.write_last)
    assert store.rows("SELECT number FROM audit_checkpoints") == [(1,)]
    store.close()


def test_reads_are_made_where_writes_are(confirmed: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several hosts a standby is not read from, even the first: it may lag, and lanes hold no locks there."""
    url = confirmed.create_database()
    migrate_database(url)
    confirmed.await_following()
    reads = PostgresReads(confirmed.url("audit", attributes=""))
    is_standby = "SELECT pg_is_in_recovery()"
    assert reads._connections._with_session(lambda session: session.execute(is_standby).fetchall()) == [(False,)]
    monkeypatch.setenv("PGHOST", confirmed.hosts)
    with connect("postgresql:///audit?user=auditrace", read_only=True) as session:
        assert session.info.host == str(confirmed.primary.folder)
    with connect(confirmed.standby.url("audit"), read_only=True) as session:
        assert session.execute(is_standby).fetchall() == [(True,)]
    confirmed.fail_over()
    assert reads.outbox().depth == 0
    assert reads._connections._with_session(lambda session: session.info.host) == str(confirmed.standby.folder)
    reads.close()


def test_doctor_says_whether_a_failover_can_lose_commits(
    lagging: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It warns while the primary waits for nobody, and when nobody is there to be waited for; else it does not.

    Whoever accepts a primary without standbys is told what is promised then.
    """
    monkeypatch.setenv("AUDITRACE_DATABASE", lagging.create_database())

    def said() -> tuple[str, str]:
        main(["doctor", "--json"])
        checks: list[dict[str, str]] = json.loads(capsys.readouterr().out)["checks"]
        (found,) = [(one["status"], one["detail"]) for one in checks if one["check"] == "durability"]
        return found

    status, detail = said()
    assert (status, "synchronous_standby_names is empty" in detail) == ("wrong", True)
    assert "loses the last commits" in detail
    monkeypatch.setenv("AUDITRACE_POSTGRES_STANDBY", "optional")
    status, detail = said()
    assert (status, "on the server's disk" in detail, "loses the last commits" in detail) == ("ok", True, True)
    with psycopg.connect(lagging.primary.url("audit"), autocommit=True) as session:
        session.execute("CREATE ROLE plain LOGIN")
    lagging.require_confirmation()
    assert said() == ("ok", "an acknowledged commit is on the disks of the server and of a standby")
    lagging.standby.disconnect()
    poll_until(lambda: said()[0] == "wrong", "the standby to be missed", PATIENCE_S)
    assert "none of the standbys of synchronous_standby_names (standby) is connected" in said()[1]
    # Who may not see which standbys there are raises no false alarm.
    plain = lagging.url("audit").replace("user=auditrace", "user=plain")
    assert durability(plain, needs_standby=True).problems == []


def test_a_primary_that_waits_for_a_standby_is_seen_by_a_trial(confirmed: Pair, tmp_path: Path) -> None:
    """Its commits do not come to an end, while everything can be read; a standby that takes over ends that."""
    store = _opened(confirmed, tmp_path)
    lane = store.lane()
    _create(store, lane, "job-1").result(PATIENCE_S)
    now_s = itertools.count(0, 100)
    ledger = WatchedLedger(lane, lambda: store.system_record("audit.stream.open"), lambda: float(next(now_s)))
    assert ledger.problem() is None
    confirmed.standby.disconnect()
    assert "do not come to an end" in (ledger.problem() or "")
    assert store.reads.outbox().depth > 0
    confirmed.fail_over()
    poll_until(lambda: ledger.problem() is None, "changes to be committed again", PATIENCE_S)
    store.close()
