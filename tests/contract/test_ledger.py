"""What every store promises of a lane: the change and its record commit together, in order, or not at all."""

import msgspec
import pytest

from service.errors import BrokenLedgerError, ConflictError, LedgerUnavailableError, ShuttingDownError
from service.jobs.model import Status
from service.ports import Receipt, Transaction, Transition, Work
from telemetry import names
from telemetry.audit.canonical import sha256_hex
from telemetry.audit.record import Target
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.stores import SECRET, connection_of, new_job, queued_as_group

pytestmark = pytest.mark.stores(*BOTH)


def _save(store: Store, transition: Transition) -> Work[Receipt]:
    return lambda transaction: transaction.save(transition)


def test_a_receipt_names_a_record_that_is_committed(store: Store) -> None:
    """When a caller holds a receipt, the record with that id, place and hash can be read by anybody."""
    receipt = store.lane().submit(_save(store, store.transition(new_job()))).result()
    ((body, record_hash, number),) = store.rows(
        "SELECT body, hash, number FROM audit_records WHERE record_id = ?", receipt.record_id
    )
    assert sha256_hex(body.encode()) == record_hash == receipt.record_hash
    assert number == receipt.sequence_number == 2


def test_the_first_record_of_a_stream_is_its_opening(store: Store) -> None:
    """A stream begins with `audit.stream.open` as number 1 and ends with `audit.stream.close`."""
    lane = store.lane()
    lane.submit(_save(store, store.transition(new_job()))).result()
    lane.close()
    events = store.rows("SELECT number, event_name FROM audit_records ORDER BY number")
    assert events == [
        (1, names.EVENT_AUDIT_STREAM_OPEN),
        (2, names.EVENT_JOB_CREATE),
        (3, names.EVENT_AUDIT_STREAM_CLOSE),
    ]


def test_a_group_is_numbered_without_gaps_in_the_order_of_arrival(store: Store) -> None:
    """Work that is committed together is numbered and linked in the order in which it was handed over."""
    lane = store.lane()
    futures = queued_as_group(lane, *[_save(store, store.transition(new_job(f"job-{n}"))) for n in range(20)])
    receipts = [future.result() for future in futures]
    assert [receipt.sequence_number for receipt in receipts] == list(range(2, 22))
    bodies = [msgspec.json.decode(row[0]) for row in store.rows("SELECT body FROM audit_records ORDER BY number")]
    hashes = [row[0] for row in store.rows("SELECT hash FROM audit_records ORDER BY number")]
    assert [body["attributes"].get(names.AUDIT_SEQUENCE_PREV_HASH) for body in bodies] == [None, *hashes[:-1]]


def test_what_fails_alone_fails_alone_and_takes_no_number(store: Store) -> None:
    """A function that raises is rolled back to before it; its neighbours in the group commit, without a gap."""

    def fail(transaction: Transaction) -> None:
        transaction.save(store.transition(new_job("job-lost")))
        raise ArithmeticError("broken on purpose")

    first, broken, last = queued_as_group(
        store.lane(),
        _save(store, store.transition(new_job("job-1"))),
        fail,
        _save(store, store.transition(new_job("job-2"))),
    )
    assert first.result().sequence_number == 2
    assert last.result().sequence_number == 3
    with pytest.raises(ArithmeticError):
        broken.result()
    assert store.reads.job("job-lost", None) is None
    assert len(store.committed) == 3


def test_a_job_change_without_its_record_cannot_commit(store: Store) -> None:
    """The database itself refuses a new job version that no record states; neighbours are not harmed."""

    def forget_the_record(transaction: Transaction) -> None:
        transaction._save_job(new_job("job-silent"), "019b76da-a800-7000-8000-ffffffffffff")

    silent, other = queued_as_group(store.lane(), forget_the_record, _save(store, store.transition(new_job("job-2"))))
    with pytest.raises(BrokenLedgerError):
        silent.result()
    assert other.result().sequence_number == 2
    assert store.reads.job("job-silent", None) is None


def test_a_record_of_a_change_that_did_not_happen_cannot_commit(store: Store) -> None:
    """The database itself refuses a record that states a job version which nobody made."""
    lying = Transition(record=store.record(target=Target("job", "job-1", 7)))
    with pytest.raises(BrokenLedgerError):
        store.lane().submit(_save(store, lying)).result()
    assert store.rows("SELECT count(*) FROM audit_records WHERE event_name = 'job.create'") == [(0,)]


def test_a_version_is_tied_to_the_record_that_states_it(store: Store) -> None:
    """A job version cannot borrow a record that speaks of something else."""

    def borrow(transaction: Transaction) -> None:
        record = store.record(target=Target("job", "job-1"))
        transaction._save_job(new_job(), record.record_id)
        transaction.save(Transition(record=record))

    with pytest.raises(BrokenLedgerError):
        store.lane().submit(borrow).result()
    assert store.reads.job("job-1", None) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET body = replace(body, 'alice', 'mallory')",
        "DELETE FROM audit_records",
        "UPDATE job_versions SET status = 'succeeded'",
        "DELETE FROM job_versions",
        "UPDATE jobs SET status = 'succeeded'",
        "DELETE FROM jobs",
        "UPDATE audit_streams SET number = 1",
        "DELETE FROM audit_streams",
    ],
)
def test_the_trail_is_append_only_for_everybody(store: Store, statement: str) -> None:
    """Triggers refuse to change or remove records, job history and streams, whoever asks."""
    store.lane().submit(_save(store, store.transition(new_job()))).result()
    with pytest.raises(store.refusal):
        store.execute(statement)


@pytest.mark.stores(SQLITE)
def test_a_record_cannot_be_replaced(store: Store) -> None:
    """SQLite's way to delete a row without firing a trigger is refused too."""
    store.lane().submit(_save(store, store.transition(new_job()))).result()
    with pytest.raises(store.refusal):
        store.execute("INSERT OR REPLACE INTO audit_records SELECT * FROM audit_records WHERE number = 2")


def test_a_fenced_lane_redoes_the_group_in_a_new_stream(store: Store) -> None:
    """When another process has closed its stream, nothing is added behind the close and nothing is lost."""
    lane = store.lane()
    before = lane.submit(_save(store, store.transition(new_job("job-1")))).result()
    store.execute("UPDATE audit_streams SET closed = 1")
    after = lane.submit(_save(store, store.transition(new_job("job-2")))).result()
    assert after.stream_id != before.stream_id
    assert after.sequence_number == 2
    assert store.rows("SELECT count(*) FROM audit_records WHERE stream_id = ?", before.stream_id) == [(2,)]


def test_a_clock_that_steps_back_closes_the_stream(store: Store) -> None:
    """Observed time never decreases within a stream: a step back over a second opens another stream."""
    lane = store.lane()
    first = lane.submit(_save(store, store.transition(new_job("job-1")))).result()
    store.clock.advance(-0.5)
    second = lane.submit(_save(store, store.transition(new_job("job-2")))).result()
    assert second.stream_id == first.stream_id
    store.clock.advance(-3600)
    third = lane.submit(_save(store, store.transition(new_job("job-3")))).result()
    assert third.stream_id != first.stream_id
    for stream_id in (first.stream_id, third.stream_id):
        rows = store.rows("SELECT observed_ns FROM audit_records WHERE stream_id = ? ORDER BY number", stream_id)
        assert rows == sorted(rows)
    last = store.rows(
        "SELECT event_name FROM audit_records WHERE stream_id = ? ORDER BY number DESC LIMIT 1", first.stream_id
    )
    assert last == [(names.EVENT_AUDIT_STREAM_CLOSE,)]


def test_a_tip_carries_a_mac_that_the_database_alone_cannot_make(store: Store) -> None:
    """The stored tip is authenticated under the deployment's secret."""
    receipt = store.lane().submit(_save(store, store.transition(new_job()))).result()
    ((number, record_hash, mac),) = store.rows("SELECT number, hash, mac FROM audit_streams")
    assert (number, record_hash) == (receipt.sequence_number, receipt.record_hash)
    assert mac == SECRET.tip_mac(receipt.stream_id, number, record_hash)


def test_a_change_of_a_version_that_is_gone_is_a_conflict(store: Store) -> None:
    """Of two changes of the same version one wins; the other is told, and leaves nothing."""
    lane = store.lane()
    lane.submit(_save(store, store.transition(new_job()))).result()
    second = msgspec.structs.replace(new_job(), version=2, status=Status.CANCELLED)
    lane.submit(_save(store, store.transition(second))).result()
    with pytest.raises(ConflictError):
        lane.submit(_save(store, store.transition(second))).result()


@pytest.mark.stores(SQLITE)
def test_a_full_disk_fails_the_group_and_changes_nothing(store: Store) -> None:
    """When the file cannot grow, callers are told that nothing was committed; later the lane goes on."""
    lane = store.lane()
    lane.submit(_save(store, store.transition(new_job("job-1")))).result()
    big = msgspec.structs.replace(new_job("job-2"), parameters={"path": "x" * 4_000_000})
    lane.submit(lambda transaction: connection_of(transaction).execute("PRAGMA max_page_count = 100")).result()
    with pytest.raises(LedgerUnavailableError):
        lane.submit(_save(store, store.transition(big))).result()
    assert store.reads.job("job-2", None) is None
    lane.submit(lambda transaction: connection_of(transaction).execute("PRAGMA max_page_count = 100000")).result()
    assert lane.submit(_save(store, store.transition(big))).result().sequence_number >= 2


def test_a_closed_lane_takes_no_more_work(store: Store) -> None:
    """After the close nothing is accepted, so nothing can come behind the closing record."""
    lane = store.lane()
    lane.submit(_save(store, store.transition(new_job()))).result()
    lane.close()
    with pytest.raises(ShuttingDownError):
        lane.submit(_save(store, store.transition(new_job("job-2")))).result()


def test_several_lanes_on_one_file_keep_streams_of_their_own(store: Store) -> None:
    """Processes that share the file never wait for each other's chain: each stream is gapless by itself."""
    lanes = [store.lane(f"owner-{n}") for n in range(3)]
    futures = [
        lane.submit(_save(store, store.transition(new_job(f"job-{n}-{turn}"))))
        for turn in range(10)
        for n, lane in enumerate(lanes)
    ]
    numbers: dict[str, list[int]] = {}
    for future in futures:
        receipt = future.result()
        numbers.setdefault(receipt.stream_id, []).append(receipt.sequence_number)
    assert sorted(numbers.values()) == [list(range(2, 12))] * 3
