"""What every store promises of the cursors of webhooks: they only move forward, by one process at a time."""

from collections.abc import Sequence

import pytest

from service.ports import RecordFilter, Transition, WebhookOutbox, WebhookRecord
from telemetry import names
from telemetry.audit.record import Result
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import commit

pytestmark = pytest.mark.stores(*BOTH)

ALL = RecordFilter(tenant_id="default")
MANY = 1000


def _numbers(records: Sequence[WebhookRecord]) -> list[int]:
    return [record.number for record in records]


def _behind(outbox: WebhookOutbox, endpoint: str = "one") -> list[tuple[int, int]]:
    return [(stream.passed, stream.committed) for stream in outbox.streams(endpoint)]


def test_a_new_endpoint_begins_at_the_present_end(store: Store) -> None:
    """It gets what is committed from now on, of streams that are there and of new ones."""
    lane = store.lane()
    commit(store, lane, 3)
    outbox = store.webhooks()
    outbox.register("one", from_start=False)
    assert _behind(outbox) == []
    commit(store, lane, 2)
    (receipt,) = commit(store, store.lane(), 1)
    assert sorted(_behind(outbox)) == [(0, 2), (4, 6)]
    (new,) = [stream for stream in outbox.streams("one") if stream.passed == 0]
    assert new.stream_id == receipt.stream_id


def test_a_new_endpoint_may_begin_at_the_start(store: Store) -> None:
    """It gets everything, in the order in which streams were opened."""
    streams = [commit(store, store.lane(), 1)[0].stream_id for _ in range(3)]
    outbox = store.webhooks()
    outbox.register("one", from_start=True)
    assert [stream.stream_id for stream in outbox.streams("one")] == streams
    assert _behind(outbox) == [(0, 2)] * 3


def test_a_known_endpoint_goes_on_where_it_was(store: Store) -> None:
    """To start again, with another setting too, changes no cursor; another name is another endpoint."""
    lane = store.lane()
    commit(store, lane, 1)
    outbox = store.webhooks()
    outbox.register("one", from_start=False)
    commit(store, lane, 1)
    outbox.register("one", from_start=False)
    outbox.register("one", from_start=True)
    assert _behind(outbox) == [(2, 3)]
    outbox.register("two", from_start=True)
    assert _behind(outbox, "two") == [(0, 3)]
    assert _behind(outbox) == [(2, 3)]


def test_records_come_in_order_and_as_the_filter_says(store: Store) -> None:
    """Only what matches, within the bounds, in the order of the stream."""
    lane = store.lane()
    commit(store, lane, 3)
    stream_id = commit(store, lane, 1)[0].stream_id
    failed = store.record(names.EVENT_JOB_CONFIRM, result=Result.DENIED)
    lane.submit(lambda transaction: transaction.save(Transition(record=failed))).result()
    outbox = store.webhooks()
    assert _numbers(outbox.records(stream_id, 0, 6, ALL, MANY)) == [1, 2, 3, 4, 5, 6]
    assert _numbers(outbox.records(stream_id, 2, 5, ALL, MANY)) == [3, 4, 5]
    assert _numbers(outbox.records(stream_id, 0, 6, ALL, 2)) == [1, 2]
    (found,) = outbox.records(stream_id, 0, 6, RecordFilter(tenant_id="default", result=("denied",)), MANY)
    row = store.reads.record(failed.record_id, None)
    assert (found.record_id, found.record_hash, found.event_name, found.body) == (
        row.record_id,
        row.record_hash,
        names.EVENT_JOB_CONFIRM,
        row.body,
    )
    assert outbox.records(stream_id, 0, 6, RecordFilter(tenant_id="acme"), MANY) == []
    assert outbox.records(stream_id, 0, 6, RecordFilter(tenant_id="default", actor_id=("a\0b",)), MANY) == []


def test_a_cursor_moves_forward_only(store: Store) -> None:
    """What was passed stays passed, whatever is said late or twice."""
    stream_id = commit(store, store.lane(), 5)[0].stream_id
    outbox = store.webhooks()
    outbox.register("one", from_start=True)
    assert outbox.hold("one")
    assert outbox.passed("one", stream_id, 3)
    assert outbox.passed("one", stream_id, 3)
    assert outbox.passed("one", stream_id, 2)
    assert _behind(outbox) == [(3, 6)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE webhook_cursors SET number = number - 1",
        "UPDATE webhook_cursors SET number = number + 100",
        "UPDATE webhook_cursors SET endpoint = 'two'",
        "INSERT INTO webhook_cursors SELECT 'two', stream_id, number + 1 FROM audit_streams",
        "INSERT INTO webhook_cursors SELECT 'three', stream_id, 0 FROM audit_streams",
        "DELETE FROM webhook_cursors",
        "DELETE FROM webhook_endpoints",
    ],
)
def test_the_cursors_of_webhooks_are_guarded_by_the_database(store: Store, statement: str) -> None:
    """Nobody can set a cursor back or beyond the end of its stream, give it away, or lose one."""
    stream_id = commit(store, store.lane(), 3)[0].stream_id
    outbox = store.webhooks()
    for name in ("one", "two"):
        outbox.register(name, from_start=True)
    outbox.hold("one")
    outbox.passed("one", stream_id, 2)
    with pytest.raises(store.refusal):
        store.execute(statement)


def test_one_process_at_a_time_works_for_an_endpoint(store: Store) -> None:
    """While it lives and renews its lease, others get nothing and move nothing; other endpoints are free."""
    stream_id = commit(store, store.lane(), 3)[0].stream_id
    one, other = store.webhooks(), store.webhooks()
    for name in ("one", "two"):
        one.register(name, from_start=True)
    assert one.hold("one")
    assert not other.hold("one")
    assert other.hold("two")
    assert not other.passed("one", stream_id, 2)
    store.clock.advance(9)
    one.renew()
    store.clock.advance(9)
    assert not other.hold("one")
    assert _behind(one) == [(0, 4)]


def test_a_paused_process_is_fenced(store: Store) -> None:
    """After ten seconds another process goes on; what the first says later moves and notes nothing."""
    stream_id = commit(store, store.lane(), 5)[0].stream_id
    paused, other = store.webhooks(), store.webhooks()
    paused.register("one", from_start=True)
    assert paused.hold("one")
    store.clock.advance(11)
    assert other.hold("one")
    assert other.passed("one", stream_id, 2)
    assert not paused.passed("one", stream_id, 4)
    paused.note("one", "refused", 1)
    assert _behind(other) == [(2, 6)]
    state = other.state("one")
    assert state is not None
    assert state.error is None
    assert not paused.hold("one")


def test_a_lease_that_nobody_took_still_counts(store: Store) -> None:
    """A process that was only slow need not send again."""
    stream_id = commit(store, store.lane(), 3)[0].stream_id
    outbox = store.webhooks()
    outbox.register("one", from_start=True)
    assert outbox.hold("one")
    store.clock.advance(60)
    assert outbox.passed("one", stream_id, 2)


def test_the_endpoints_of_a_dead_process_are_taken_over_at_once(store: Store) -> None:
    """On one machine nobody waits for the lease of a process that is gone."""
    commit(store, store.lane(), 1)
    dead, other = store.webhooks(), store.webhooks()
    dead.register("one", from_start=True)
    assert dead.hold("one")
    store.kill_webhooks(dead)
    assert other.hold("one")


def test_a_lease_that_is_given_back_or_not_needed_is_free_in_time(store: Store) -> None:
    """Given back, the next process has it at once; not renewed, it ends by itself."""
    commit(store, store.lane(), 1)
    one, other = store.webhooks(), store.webhooks()
    one.register("one", from_start=True)
    assert one.hold("one")
    one.release("one")
    assert other.hold("one")
    other.rest("one")
    store.clock.advance(9)
    other.renew()
    assert not one.hold("one")
    store.clock.advance(2)
    assert one.hold("one")


def test_the_state_says_what_is_behind_and_why(store: Store) -> None:
    """The number of records, the time of the oldest, and the error as long as it lasts; None for an unknown one."""
    receipt, *_ = commit(store, store.lane(), 3)
    outbox = store.webhooks()
    assert outbox.state("one") is None
    outbox.register("one", from_start=True)
    outbox.hold("one")
    outbox.passed("one", receipt.stream_id, 1)
    outbox.note("one", "503 Service Unavailable", 17)
    state = outbox.state("one")
    assert state is not None
    row = store.reads.record(receipt.record_id, None)
    assert receipt.sequence_number == 2
    assert (state.records, state.oldest_ns) == (3, row.observed_ns)
    assert (state.error, state.failing_since_ns) == ("503 Service Unavailable", 17)
    outbox.note("one", None, None)
    outbox.passed("one", receipt.stream_id, 4)
    state = outbox.state("one")
    assert state is not None
    assert (state.records, state.oldest_ns, state.error) == (0, None, None)
