"""What the SQLite store promises beside the contract of every store, about a file that others fill and lock."""

import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.bootstrap.sqlite import SqliteDatabase
from service.errors import BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, SettingsError
from service.jobs.model import Status, TenantId
from service.ports import ApiKey, JobFilter, PutKey, Receipt, Transaction, Transition
from service.store.leases import LEASE_S
from service.store.rows import encode_cursor
from service.store.sqlite import connection as connecting
from service.store.sqlite.connection import connect
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.reads import SqliteReads
from service.store.sqlite.statements import SQL
from service.store.sqlite.transaction import SqliteTransaction
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import connection_of, new_job, queued_as_group


@contextmanager
def _as_anybody(store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Open the file as any program does, without the settings of the service."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    yield connection
    connection.close()


def _commit(store: SqliteStore, lane: SqliteLane, job_id: str) -> Receipt:
    return lane.submit(lambda transaction: transaction.save(store.transition(new_job(job_id)))).result()


@pytest.mark.parametrize(
    "table",
    [
        "audit_records",
        "audit_streams",
        "audit_envelopes",
        "audit_checkpoints",
        "audit_anchors",
        "signing_keys",
        "jobs",
        "job_versions",
        "api_keys",
    ],
)
def test_nothing_is_replaced(store: SqliteStore, table: str) -> None:
    """`INSERT OR REPLACE`, by which SQLite deletes a row without firing a trigger, is refused, whoever asks."""
    lane = store.lane()
    _commit(store, lane, "job-1")
    key = ApiKey(key_id="k", name="n", tenant_id=TenantId("t"), roles=("admin",), secret_sha256="h", created_ns=1)
    made = Transition(record=store.record("key.create"), writes=(PutKey(key),))
    lane.submit(lambda transaction: transaction.save(made)).result()
    store.checkpoints(lane).write()
    before = store.rows(f"SELECT * FROM {table}")
    assert before
    with _as_anybody(store) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
    assert store.rows(f"SELECT * FROM {table}") == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_keys SET roles = 'admin'",
        "UPDATE api_keys SET revoked_ns = NULL",
        "UPDATE api_keys SET revoked_ns = 99",
        "UPDATE api_keys SET secret_sha256 = 'x'",
        "UPDATE api_keys SET person = 'x'",
        "DELETE FROM api_keys",
        "UPDATE audit_envelopes SET resource = x'00'",
        "DELETE FROM audit_envelopes",
    ],
)
def test_keys_and_envelopes_stay_as_they_were_made(store: SqliteStore, statement: str) -> None:
    """A key is revoked once and not changed otherwise; what records are shipped in is not changed at all."""
    with _as_anybody(store) as connection:
        connection.execute("INSERT INTO audit_envelopes VALUES (1, x'01', x'02')")
        connection.execute("INSERT INTO api_keys VALUES ('k', 't', 'n', 'viewer', 'h', 1, NULL, NULL, NULL)")
        connection.execute("UPDATE api_keys SET revoked_ns = 5")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)


def test_a_ledger_that_another_process_holds_is_busy_and_nothing_changes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer who waits in vain is told to try later, all of its group; once the other has ended, it goes on."""
    assert connecting.BUSY_TIMEOUT_MS == 5_000
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_MS", 20)
    lane = store.lane()
    first = _commit(store, lane, "job-1")
    with _as_anybody(store) as other:
        other.execute("BEGIN IMMEDIATE")
        save = [lambda transaction, n=n: transaction.save(store.transition(new_job(f"job-{n}"))) for n in (2, 3)]
        for future in [lane.submit(work) for work in save]:
            with pytest.raises(LedgerBusyError):
                future.result()
        other.execute("ROLLBACK")
    assert store.rows("SELECT job_id FROM jobs") == [("job-1",)]
    after = _commit(store, lane, "job-2")
    assert (after.stream_id, after.sequence_number) == (first.stream_id, first.sequence_number + 1)


def test_readers_are_not_held_up_by_a_writer(store: SqliteStore) -> None:
    """While a transaction is open, others read what was committed before it."""
    lane = store.lane()
    _commit(store, lane, "job-1")
    started, go = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        transaction.save(store.transition(new_job("job-2")))
        started.set()
        go.wait()

    future = lane.submit(hold)
    started.wait()
    assert store.reads.job("job-1", None) is not None
    assert store.reads.job("job-2", None) is None
    go.set()
    future.result()
    assert store.reads.job("job-2", None) is not None


def test_a_full_disk_fails_the_whole_group_and_the_lane_recovers(store: SqliteStore) -> None:
    """What cannot be written fails all that would have been committed with it; once there is room, work goes on."""
    lane = store.lane()
    first = _commit(store, lane, "job-1")
    lane.submit(lambda transaction: connection_of(transaction).execute("PRAGMA max_page_count = 100")).result()
    big = msgspec.structs.replace(new_job("job-big"), parameters={"path": "x" * 4_000_000})
    futures = queued_as_group(
        lane,
        lambda transaction: transaction.save(store.transition(new_job("job-2"))),
        lambda transaction: transaction.save(store.transition(big)),
        lambda transaction: transaction.save(store.transition(new_job("job-3"))),
    )
    for future in futures:
        with pytest.raises(LedgerUnavailableError):
            future.result()
    assert store.rows("SELECT job_id FROM jobs") == [("job-1",)]
    assert store.rows("SELECT max(number) FROM audit_records") == [(first.sequence_number,)]
    lane.submit(lambda transaction: connection_of(transaction).execute("PRAGMA max_page_count = 100000")).result()
    assert _commit(store, lane, "job-4").sequence_number == first.sequence_number + 1
    store.checkpoints(lane).write()
    assert store.verify().verdict == "intact"


def test_work_that_ends_the_transaction_by_itself_harms_nobody_for_long(store: SqliteStore) -> None:
    """A function that breaks every rule and rolls back by hand fails, and the lane goes on."""
    lane = store.lane()
    first = _commit(store, lane, "job-1")
    with pytest.raises(BrokenLedgerError):
        lane.submit(lambda transaction: connection_of(transaction).execute("ROLLBACK")).result()
    assert _commit(store, lane, "job-2").sequence_number == first.sequence_number + 1
    store.checkpoints(lane).write()
    assert store.verify().verdict == "intact"


def test_commits_are_on_disk_when_they_are_acknowledged(store: SqliteStore) -> None:
    """Writers use the write-ahead log and sync it at each commit, on every connection that commits records."""
    settings = ["journal_mode", "synchronous", "foreign_keys"]

    def read(transaction: Any) -> list[object]:
        return [connection_of(transaction).execute(f"PRAGMA {name}").fetchone()[0] for name in settings]

    assert store.lane().submit(read).result() == ["wal", 2, 1]


def test_a_file_that_is_damaged_is_called_broken(store: SqliteStore) -> None:
    """What needs a person is told apart from what may succeed later."""
    store.close()
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(BrokenLedgerError):
        connect(store.path)


def test_a_new_file_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    """Inputs and artifacts lie in the database, so others get neither it nor what SQLite puts beside it."""
    database = SqliteDatabase(f"sqlite:///{tmp_path / 'auditrace.db'}")
    database.migrate()
    connection = connect(tmp_path / "auditrace.db")
    connection.execute("CREATE TABLE written (a)")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    connection.close()
    assert modes == {"auditrace.db": 0o600, "auditrace.db-wal": 0o600, "auditrace.db-shm": 0o600}


def _plans(store: SqliteStore, ask: Callable[[SqliteReads], object]) -> str:
    """Return how SQLite carries out the statements with which the reads are asked."""
    reads, statements = SqliteReads(store.path), list[str]()
    with reads._connections._connection() as connection:
        connection.set_trace_callback(statements.append)
        ask(reads)
        connection.set_trace_callback(None)
        plans = [connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall() for statement in statements]
    reads.close()
    return "\n".join(str(row[3]) for plan in plans for row in plan)


@pytest.mark.parametrize(
    "where", [JobFilter(), JobFilter(status=Status.FAILED), JobFilter(template="greet"), JobFilter(created_by="anna")]
)
def test_a_page_of_jobs_costs_the_same_however_many_jobs_there_are(store: SqliteStore, where: JobFilter) -> None:
    """It is read in the order of an index, first page or not: nothing is sorted, and no table is gone through."""

    def both(reads: SqliteReads) -> None:
        reads.jobs(TenantId("default"), where, None, 10)
        reads.jobs(TenantId("default"), where, encode_cursor(1, "0"), 10)

    plan = _plans(store, both)
    assert "SEARCH jobs USING INDEX" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("name", "gone_through"), [("next_runnable", ["SCAN jobs USING INDEX jobs_queued"]), ("cancelled_runs", [])]
)
def test_what_a_worker_asks_costs_the_same_however_many_jobs_have_ended(
    store: SqliteStore, name: str, gone_through: list[str]
) -> None:
    """A claim holds up every writer of the file, so it looks at queued jobs and running ones only."""
    with _as_anybody(store) as connection:
        rows = connection.execute(
            f"EXPLAIN QUERY PLAN {SQL[name]}", {"now_ns": 1, "worker_id": "w", "max_bytes": 1}
        ).fetchall()
    assert [str(row[3]) for row in rows if str(row[3]).startswith("SCAN job")] == gone_through
    assert not any("jobs_by_" in str(row[3]) for row in rows)


def test_the_jobs_of_each_status_are_counted_without_reading_one(store: SqliteStore) -> None:
    """Each look at the metrics counts them, so the count comes from an index alone."""
    assert "SCAN jobs USING COVERING INDEX jobs_by_status" in _plans(store, SqliteReads.job_counts)


def test_lock_files_that_cannot_be_written_are_a_wrong_setting(tmp_path: Path) -> None:
    """The message names the folder beside the database, so that an operator can mend it."""
    (tmp_path / "auditrace.db.owners").touch()
    with pytest.raises(SettingsError, match=r"auditrace\.db\.owners cannot be written"):
        OwnerLocks(tmp_path / "auditrace.db", "node")


def test_a_transaction_that_took_longer_than_a_lease_leaves_its_stream_alive(store: SqliteStore) -> None:
    """The lease counts from the commit, not from the begin of the transaction, and a record is sealed in its time."""
    lane = store.lane()
    _commit(store, lane, "job-1")
    sealed_after: list[int] = []

    def slow(transaction: SqliteTransaction) -> None:
        store.clock.advance(LEASE_S + 1)
        sealed_after.append(store.clock())
        transaction.save(store.fact())

    lane.submit(slow).result()
    ((alive_until_ns,),) = store.rows("SELECT alive_until_ns FROM audit_streams WHERE closed = 0")
    ((observed_ns,),) = store.rows("SELECT max(observed_ns) FROM audit_records")
    assert alive_until_ns > store.clock()
    assert observed_ns > sealed_after[0]
