"""What lanes of PostgreSQL promise beyond the contract of all stores: they work side by side, and wait for nobody."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
import pytest

from service.errors import BrokenLedgerError, LedgerBusyError, LedgerUnavailableError
from service.jobs.model import Job, Status, TenantId
from service.ports import ApiKey, PutKey, Receipt, RecordFilter, Transaction, Transition, Work
from service.store.postgres.lanes import MAX_GROUP, PostgresLanes
from telemetry import names
from tests.support.both_stores import POSTGRES
from tests.support.poll_until import poll_until
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import connection_of, new_job

pytestmark = pytest.mark.stores(POSTGRES)

EVERYTHING = (
    "audit_records",
    "audit_record_keys",
    "audit_streams",
    "audit_envelopes",
    "audit_checkpoints",
    "audit_anchors",
    "signing_keys",
    "jobs",
    "job_versions",
    "api_keys",
    "delivery_cursors",
)


def _made(store: PostgresStore, job_id: str) -> Work[Receipt]:
    transition = store.transition(new_job(job_id))
    return lambda transaction: transaction.save(transition)


def _cancelled(store: PostgresStore, *job_ids: str) -> Work[list[Receipt]]:
    """Return work that reads each job and cancels it, in this order."""

    def work(transaction: Transaction) -> list[Receipt]:
        jobs = [transaction.job(job_id, None) for job_id in job_ids]
        return [transaction.save(store.transition(_next(job))) for job in jobs if job is not None]

    return work


def _next(job: Job) -> Job:
    return msgspec.structs.replace(job, version=job.version + 1, status=Status.CANCELLED)


@contextmanager
def _held_up(lane: PostgresLanes) -> Iterator[None]:
    """Keep a lane within a transaction, which opens its stream, for as long as the block lasts."""
    started, go = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        started.set()
        go.wait(60)

    holding = lane.submit(hold)
    assert started.wait(60)
    try:
        yield
    finally:
        go.set()
        holding.result()


def _group(lane: PostgresLanes, works: list[Work[Any]]) -> list[Future[Any]]:
    with _held_up(lane):
        return [lane.submit(work) for work in works]


@contextmanager
def _locking(store: PostgresStore, job_id: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold the row of a job, as a lane of another process does."""
    with psycopg.connect(store.url) as other:
        other.execute("SELECT FROM jobs WHERE job_id = %s FOR UPDATE", [job_id])
        yield other


def test_lanes_of_one_process_share_the_work(store: PostgresStore) -> None:
    """While one lane is held up, the others go on, each in a stream of its own without gaps."""
    lanes = store.lane(count=3)
    with _held_up(lanes):
        receipts = [lanes.submit(_made(store, f"job-{number}")).result() for number in range(20)]
    for stream_id in {receipt.stream_id for receipt in receipts}:
        numbers = [row[0] for row in store.rows("SELECT number FROM audit_records WHERE stream_id = ?", stream_id)]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_a_clean_stop_closes_all_streams_and_ends_with_one_checkpoint(store: PostgresStore) -> None:
    """Every lane writes its closing record; behind all of them one checkpoint names every stream as closed."""
    lanes = store.lane(count=3)
    with _held_up(lanes):
        lanes.submit(_made(store, "job-1")).result()
    lanes.submit(_made(store, "job-2")).result()
    lanes.close(store.checkpoints(lanes).write_last)
    assert store.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]
    assert store.rows("SELECT count(*) FROM audit_checkpoints") == [(1,)]
    assert store.rows("SELECT count(*) FROM audit_anchors WHERE closed = 1") == store.rows(
        "SELECT count(*) FROM audit_streams"
    )
    report = store.verify()
    assert (report.verdict, report.findings, report.unanchored) == ("intact", (), 1)


def test_a_second_stop_adds_nothing(store: PostgresStore) -> None:
    """Who closes lanes that are closed writes no further checkpoint, which no relay would be left to deliver."""
    lanes = store.lane(count=3)
    with _held_up(lanes):
        lanes.submit(_made(store, "job-1")).result()
    lanes.submit(_made(store, "job-2")).result()
    writer = store.checkpoints(lanes)
    lanes.close(writer.write_last)
    lanes.close(writer.write_last)
    assert store.rows("SELECT count(*) FROM audit_checkpoints") == [(1,)]


def test_a_job_that_others_work_on_holds_up_nobody_else(store: PostgresStore) -> None:
    """In a group nobody waits for a row: who finds it taken is put off, the rest commits, and it succeeds later."""
    lane = store.lane()
    lane.submit(_made(store, "job-1")).result()
    with _locking(store, "job-1") as other:
        busy, free = _group(lane, [_cancelled(store, "job-1"), _made(store, "job-2")])
        assert free.result().sequence_number == 3
        assert not busy.done()
        other.rollback()
    assert [receipt.sequence_number for receipt in busy.result()] == [4]
    assert store.reads.job("job-1", None) == _next(new_job("job-1"))


def test_a_job_that_stays_taken_is_a_reason_to_try_later(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: after some tries the caller is told, and nothing was changed."""
    monkeypatch.setattr("service.store.lanes._TRIES", 1)
    lane = store.lane()
    lane.submit(_made(store, "job-1")).result()
    with _locking(store, "job-1"), pytest.raises(LedgerBusyError):
        lane.submit(_cancelled(store, "job-1")).result()
    assert store.rows("SELECT count(*) FROM audit_records") == [(2,)]


def test_the_names_of_keys_are_read_by_one_transaction_at_a_time(store: PostgresStore) -> None:
    """Two lanes cannot both find that a name is free: the second one waits, and finds the key of the first."""
    lanes = [store.lane(f"node-{number}") for number in range(2)]
    has_read, may_go_on = threading.Event(), threading.Event()
    key = ApiKey(key_id="k", name="anna", tenant_id=TenantId("t"), roles=("admin",), secret_sha256="h", created_ns=1)

    def create(transaction: Transaction) -> None:
        assert transaction.keys() == []
        has_read.set()
        may_go_on.wait(60)
        transaction.save(Transition(record=store.record("key.create"), writes=(PutKey(key),)))

    first = lanes[0].submit(create)
    has_read.wait(60)
    second = lanes[1].submit(lambda transaction: transaction.keys())
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = ("
    waiting += "SELECT oid FROM pg_database WHERE datname = current_database())"
    poll_until(lambda: second.done() or store.rows(waiting) == [(1,)], "the second lane to wait")
    may_go_on.set()
    first.result()
    assert second.result() == [key]


def test_lanes_that_lock_each_other_out_both_succeed(store: PostgresStore) -> None:
    """Two changes of the same two jobs in opposite orders: one is rolled back by the database, and done again alone."""
    lanes = [store.lane(f"node-{number}") for number in range(2)]
    for number in (1, 2):
        lanes[0].submit(_made(store, f"job-{number}")).result()
    both_have_one = threading.Barrier(2)

    def crossing(first: str, second: str) -> Work[None]:
        is_first_try = [True]

        def work(transaction: Transaction) -> None:
            one = transaction.job(first, None)
            if is_first_try.pop() if is_first_try else False:
                both_have_one.wait(60)
            other = transaction.job(second, None)
            for job in (one, other):
                assert job is not None
                transaction.save(store.transition(_next(job)))

        return work

    futures = [
        lanes[0].submit(crossing("job-1", "job-2")),
        lanes[1].submit(crossing("job-2", "job-1")),
    ]
    for future in futures:
        assert future.result() is None
    assert store.rows("SELECT job_id, version FROM jobs ORDER BY job_id") == [("job-1", 3), ("job-2", 3)]
    assert store.verify().findings == ()


def test_a_statement_that_takes_too_long_fails_alone(store: PostgresStore) -> None:
    """A statement over its time limit is cancelled and its work rolled back; neighbours commit, without a gap."""
    lane = store.lane()

    def slow(transaction: Any) -> None:
        transaction.save(store.transition(new_job("job-slow")))
        connection_of(transaction).execute("SET LOCAL statement_timeout = '20ms'")
        connection_of(transaction).execute("SELECT pg_sleep(30)")

    first, cancelled, last = _group(lane, [_made(store, "job-1"), slow, _made(store, "job-2")])
    assert (first.result().sequence_number, last.result().sequence_number) == (2, 3)
    with pytest.raises(LedgerBusyError):
        cancelled.result()
    assert store.reads.job("job-slow", None) is None


def test_work_of_a_transaction_that_the_server_aborted_has_no_result(store: PostgresStore) -> None:
    """Not even work without a record: PostgreSQL answers the COMMIT of an aborted transaction without an error."""
    lane = store.lane()
    lane.submit(_made(store, "job-1")).result()
    refused = {"stream_id": "other", "reason": "a reason", "now_ns": 1}

    def aborting(transaction: Any) -> None:
        # Then the way back to the savepoint fails.
        connection_of(transaction).execute("RELEASE work")
        raise ValueError("refused")

    quiet, failed = _group(lane, [lambda transaction: transaction.execute("put_refused", refused), aborting])
    with pytest.raises(LedgerUnavailableError):
        failed.result()
    with pytest.raises(LedgerUnavailableError):
        quiet.result()
    assert store.rows("SELECT stream_id FROM refused_streams") == []
    assert lane.submit(_made(store, "job-2")).result().sequence_number == 3


def test_a_group_has_no_more_savepoints_than_a_session_keeps_at_hand(store: PostgresStore) -> None:
    """More work than that is committed in several groups, in the order in which it came."""
    commits: list[int] = []
    lane = store.lane(on_commit=lambda outcomes: commits.append(len(outcomes)))
    futures = _group(lane, [_made(store, f"job-{number}") for number in range(2 * MAX_GROUP + 1)])
    assert [future.result().sequence_number for future in futures] == list(range(2, 2 * MAX_GROUP + 3))
    assert max(commits) == MAX_GROUP
    assert MAX_GROUP == 64


def test_records_of_every_month_are_found_and_unique_over_all_of_them(store: PostgresStore) -> None:
    """A partition is there before its month begins; ids and places are unique however the records are partitioned."""
    lane = store.lane()
    first = lane.submit(_made(store, "job-1")).result()
    for _ in range(5):
        store.clock.advance(45 * 24 * 3600)
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
    filled = store.rows("SELECT count(DISTINCT tableoid) FROM audit_records")
    assert filled == [(6,)]
    record = msgspec.structs.replace(store.fact().record, record_id=first.record_id)
    again = msgspec.structs.replace(store.fact(), record=_with_id(record, first.record_id))
    with pytest.raises(BrokenLedgerError):
        lane.submit(lambda transaction: transaction.save(again)).result()
    page = store.reads.records(RecordFilter(), None, 100)
    assert [row.sequence_number for row in page.rows] == list(range(7, 0, -1))
    assert store.verify().findings == ()


def _with_id(record: Any, record_id: str) -> Any:
    same = {names.AUDIT_RECORD_ID: record_id, names.LOG_RECORD_UID: record_id}
    return msgspec.structs.replace(record, attributes={**record.attributes, **same})


@pytest.mark.parametrize("table", EVERYTHING)
def test_no_table_of_the_trail_can_be_emptied(store: PostgresStore, table: str) -> None:
    """TRUNCATE, which asks no row, is refused too, by the whole table and by each of its partitions."""
    store.lane().submit(_made(store, "job-1")).result()
    partitions = [name for (name,) in store.rows("SELECT name FROM record_partitions")]
    for name in (table, *partitions):
        with pytest.raises(psycopg.errors.RestrictViolation):
            store.execute(f"TRUNCATE {name} CASCADE")
    assert store.rows("SELECT count(*) FROM audit_records") == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_record_keys VALUES ('x', 'y', 1, 1)",
        "UPDATE audit_record_keys SET number = number + 1",
        "DELETE FROM audit_record_keys",
        "INSERT INTO audit_records SELECT * FROM audit_records WHERE number = 2",
        "INSERT INTO audit_records SELECT (jsonb_populate_record(r, '{\"number\": 9}')).* FROM audit_records r LIMIT 1",
    ],
)
def test_no_record_is_without_its_key_and_none_says_other_than_its_body(store: PostgresStore, statement: str) -> None:
    """Keys come with records and stay with them; a row whose columns differ from its body is refused."""
    store.lane().submit(_made(store, "job-1")).result()
    with pytest.raises(store.refusal):
        store.execute(statement)


def test_a_text_that_a_column_cannot_hold_is_recorded_all_the_same(store: PostgresStore) -> None:
    """NUL can stand in a body and in no column: the body keeps it, and the record is found by a likeness."""
    reason = "NUL \0 and \\u0000"
    record = store.record(more={names.AUDITRACE_REASON: reason, names.AUDITRACE_REQUEST_ID: "a\0b"})
    transition = msgspec.structs.replace(store.fact(), record=record)
    lane = store.lane()
    receipt = lane.submit(lambda transaction: transaction.save(transition)).result()
    page = store.reads.records(RecordFilter(request_id=("a\0b",)), None, 10)
    assert [row.record_id for row in page.rows] == [receipt.record_id]
    assert msgspec.json.decode(page.rows[0].body)["attributes"][names.AUDITRACE_REASON] == reason


def test_a_listing_never_runs_ahead_of_a_lane_that_commits_late(store: PostgresStore) -> None:
    """A reader that goes on from the last record it saw also finds what was sealed before and committed after."""
    late, quick = store.lane("late"), store.lane("quick")
    for lane in (late, quick):
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
    seen = store.reads.records(RecordFilter(), None, 100).rows
    sealed, go = threading.Event(), threading.Event()

    def slowly(transaction: Transaction) -> Receipt:
        receipt = transaction.save(store.fact())
        sealed.set()
        go.wait(60)
        return receipt

    store.clock.advance(1)
    pending = late.submit(slowly)
    assert sealed.wait(60)
    store.clock.advance(1)
    passing = quick.submit(lambda transaction: transaction.save(store.fact())).result()
    store.clock.advance(1)
    assert store.reads.records(RecordFilter(), None, 100).rows == seen
    go.set()
    since = RecordFilter(since_ns=seen[0].observed_ns + 1)
    found = [row.record_id for row in store.reads.records(since, None, 100).rows]
    assert found == [passing.record_id, pending.result().record_id]


def test_what_was_committed_is_listed_at_once(store: PostgresStore) -> None:
    """A reader waits for lanes that are in the middle of a transaction, and so sees everything that was answered."""
    lanes = store.lane(count=2)
    started, go = threading.Event(), threading.Event()

    def briefly(transaction: Transaction) -> Receipt:
        receipt = transaction.save(store.fact())
        started.set()
        go.wait(60)
        return receipt

    pending = lanes.submit(briefly)
    assert started.wait(60)
    store.clock.advance(1)
    answered = lanes.submit(lambda transaction: transaction.save(store.fact())).result()
    store.clock.advance(1)
    found: list[str] = []
    reader = threading.Thread(
        target=lambda: found.extend(row.record_id for row in store.reads.records(RecordFilter(), None, 100).rows)
    )
    reader.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    poll_until(lambda: store.rows(waiting) == [(1,)], "the reader to wait for the lane")
    go.set()
    reader.join()
    assert {answered.record_id, pending.result().record_id} <= set(found)


def test_pages_go_on_where_the_one_before_ended(store: PostgresStore) -> None:
    """Records of all lanes come once, newest first, while more are added."""
    lanes = [store.lane(f"node-{number}") for number in range(3)]
    for _ in range(4):
        for lane in lanes:
            lane.submit(lambda transaction: transaction.save(store.fact())).result()
    store.clock.advance(1)
    everything = [row.record_id for row in store.reads.records(RecordFilter(), None, 1000).rows]
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = store.reads.records(RecordFilter(), cursor, 4)
        found += [row.record_id for row in page.rows]
        lanes[0].submit(lambda transaction: transaction.save(store.fact())).result()
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == everything
    assert len(found) == 15
