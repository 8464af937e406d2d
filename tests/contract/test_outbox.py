"""What every store promises of its outbox: nothing is skipped, nothing goes back, whoever delivers and dies."""

from collections.abc import Sequence

import pytest

from service.errors import LedgerBusyError, NotFoundError
from service.ports import OutboxRecord
from service.store.sqlite.connection import connect
from telemetry import names
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.deliveries import commit, committed

pytestmark = pytest.mark.stores(*BOTH)

MANY = 1000
MUCH = 1 << 30


def _places(records: Sequence[OutboxRecord]) -> list[tuple[str, int]]:
    return [(record.stream_id, record.number) for record in records]


def _numbers(records: Sequence[OutboxRecord]) -> list[int]:
    return [record.number for record in records]


def _delivery_of(store: Store, record_id: str) -> str:
    row = store.reads.record(record_id, None)
    assert row is not None
    return row.delivery


def test_records_are_taken_as_they_were_stored(store: Store) -> None:
    """What is taken are the bytes that were committed, in the order of their stream, from its first record on."""
    commit(store, store.lane(), 5)
    taken = store.outbox().take(MANY, MUCH)
    assert [(each.stream_id, each.number, each.record_id, each.log_record) for each in taken] == committed(store)
    assert {(each.resource, each.scope) for each in taken} == {
        (store.audit_log.resource_bytes, store.audit_log.scope_bytes)
    }


def test_what_was_not_acknowledged_is_taken_again(store: Store) -> None:
    """A relay that dies after sending leaves the cursor where it was; after the acknowledgement it goes on behind."""
    commit(store, store.lane(), 9)
    outbox = store.outbox()
    first = outbox.take(4, MUCH)
    assert _numbers(first) == [1, 2, 3, 4]
    assert outbox.take(4, MUCH) == first
    assert outbox.delivered(first) == []
    assert _numbers(outbox.take(4, MUCH)) == [5, 6, 7, 8]
    assert _delivery_of(store, first[3].record_id) == "delivered"
    assert store.reads.outbox().depth == 6


def test_a_part_of_what_was_taken_may_be_acknowledged(store: Store) -> None:
    """After the first half of a split batch was delivered, the second half comes next."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    outbox.delivered(outbox.take(MANY, MUCH)[:2])
    assert _numbers(outbox.take(MANY, MUCH)) == [3, 4, 5, 6]


def test_a_cursor_never_jumps(store: Store) -> None:
    """Records that do not follow the cursor move nothing: what lies between them was answered for by nobody."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    taken = outbox.take(MANY, MUCH)
    assert outbox.delivered(taken[2:]) == [taken[0].stream_id]
    assert _numbers(outbox.take(MANY, MUCH)) == [1, 2, 3, 4, 5, 6]


def test_an_acknowledgement_that_comes_twice_moves_nothing_back(store: Store) -> None:
    """What was delivered is delivered: to say it again, late, changes nothing."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    taken = outbox.take(MANY, MUCH)
    outbox.delivered(taken)
    assert outbox.delivered(taken[:2]) == [taken[0].stream_id]
    assert outbox.take(MANY, MUCH) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE delivery_cursors SET number = number - 1",
        "UPDATE delivery_cursors SET number = number + 100",
        "UPDATE delivery_cursors SET epoch = 0",
        "UPDATE delivery_cursors SET owner = 'somebody'",
        "DELETE FROM delivery_cursors",
    ],
)
def test_cursors_are_guarded_by_the_database(store: Store, statement: str) -> None:
    """Nobody can set a cursor back or beyond the end of its stream, take a lease without a new epoch, or lose one."""
    commit(store, store.lane(), 3)
    outbox = store.outbox()
    outbox.delivered(outbox.take(2, MUCH))
    with pytest.raises(store.refusal):
        store.execute(statement)


def test_a_batch_is_bounded_in_records_and_bytes(store: Store) -> None:
    """At most so many records, at most so many bytes, over all streams together."""
    for _ in range(3):
        commit(store, store.lane(), 9)
    outbox = store.outbox()
    assert len(outbox.take(25, MUCH)) == 25
    taken = outbox.take(MANY, MUCH)
    assert len(taken) == 30
    size = sum(len(record.log_record) for record in taken[:12])
    bounded = outbox.take(MANY, size)
    assert 0 < sum(len(record.log_record) for record in bounded) <= size


def test_a_record_that_is_larger_than_a_batch_comes_alone(store: Store) -> None:
    """Nothing is too large to be delivered."""
    commit(store, store.lane(), 3)
    outbox = store.outbox()
    for number in (1, 2, 3, 4):
        taken = outbox.take(MANY, 1)
        assert _numbers(taken) == [number]
        outbox.delivered(taken)


def test_streams_take_turns(store: Store) -> None:
    """A stream with a long backlog does not keep the others waiting."""
    for _ in range(3):
        commit(store, store.lane(), 20)
    outbox = store.outbox()
    served = set()
    for _ in range(3):
        taken = outbox.take(5, MUCH)
        outbox.delivered(taken)
        served.update(record.stream_id for record in taken)
    assert len(served) == 3


def test_one_relay_at_a_time_has_a_stream(store: Store) -> None:
    """While the lease of a stream is held by a relay that lives, the others are given nothing of it."""
    lane = store.lane()
    commit(store, lane, 3)
    one, other = store.outbox(), store.outbox()
    one.take(2, MUCH)
    assert other.take(MANY, MUCH) == []
    assert [lag.is_elsewhere for lag in other.backlog()] == [True]
    assert [lag.is_elsewhere for lag in one.backlog()] == [False]
    store.clock.advance(9)
    one.renew()
    store.clock.advance(9)
    assert other.take(MANY, MUCH) == []


def test_a_look_at_the_backlog_shows_who_lives_and_what_is_over(store: Store) -> None:
    """A lease that is renewed ends later than before, one that is not stays; a closed stream is told from others."""
    ended = store.lane("ended")
    (receipt,) = commit(store, ended, 1)
    ended.close()
    commit(store, store.lane("open"), 1)
    one, other = store.outbox(), store.outbox()
    assert one.take(MANY, MUCH)
    before = other.backlog()
    assert {lag.stream_id: lag.is_closed for lag in before} == {
        lag.stream_id: lag.stream_id == receipt.stream_id for lag in before
    }
    assert len(before) == 2
    store.clock.advance(2)
    assert other.backlog() == before
    one.renew()
    assert all(now.until_ns > then.until_ns for now, then in zip(other.backlog(), before, strict=True))


def test_relays_share_the_streams(store: Store) -> None:
    """Streams that are free go to whoever comes first, the others to whoever comes next."""
    commit(store, store.lane(), 3)
    one, other = store.outbox(), store.outbox()
    first = one.take(MANY, MUCH)
    commit(store, store.lane(), 3)
    second = other.take(MANY, MUCH)
    assert {record.stream_id for record in first}.isdisjoint(record.stream_id for record in second)
    assert one.delivered(first) == other.delivered(second) == []
    assert store.reads.outbox().depth == 0


def test_a_paused_relay_is_fenced(store: Store) -> None:
    """After ten seconds without renewal another relay goes on; what the first says later moves nothing."""
    commit(store, store.lane(), 5)
    paused, other = store.outbox(), store.outbox()
    late = paused.take(3, MUCH)
    store.clock.advance(11)
    taken = other.take(2, MUCH)
    assert _numbers(taken) == [1, 2]
    assert paused.delivered(late) == [late[0].stream_id]
    assert not paused.park(late[0], "refused")
    assert other.delivered(taken) == []
    assert _numbers(other.take(MANY, MUCH)) == [3, 4, 5, 6]
    assert store.reads.outbox().parked == 0


def test_a_lease_of_before_the_clock_stepped_back_holds_nobody_up(store: Store) -> None:
    """A relay that was paused is followed after a step of an hour back too; what it says later moves nothing."""
    commit(store, store.lane(), 5)
    paused, other = store.outbox(), store.outbox()
    late = paused.take(3, MUCH)
    store.clock.advance(-3600)
    assert [lag.is_elsewhere for lag in other.backlog()] == [False]
    assert _numbers(other.take(2, MUCH)) == [1, 2]
    assert paused.delivered(late) == [late[0].stream_id]


def test_a_relay_that_took_over_and_lost_again_is_fenced_too(store: Store) -> None:
    """The epoch grows with every change of hands, so an old claim of the present owner does not count either."""
    commit(store, store.lane(), 5)
    one, other = store.outbox(), store.outbox()
    early = one.take(2, MUCH)
    store.clock.advance(11)
    other.take(2, MUCH)
    store.clock.advance(11)
    again = one.take(2, MUCH)
    assert [record.epoch for record in again] == [early[0].epoch + 2] * 2
    assert one.delivered(early) == [early[0].stream_id]
    assert one.delivered(again) == []


def test_a_lease_that_ended_and_was_not_taken_still_counts(store: Store) -> None:
    """A relay that was only slow, and whose streams nobody took, need not send again."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    taken = outbox.take(3, MUCH)
    store.clock.advance(60)
    assert outbox.delivered(taken) == []


def test_the_streams_of_a_dead_relay_are_taken_over_at_once(store: Store) -> None:
    """On one machine nobody waits for the lease of a process that is gone."""
    commit(store, store.lane(), 5)
    dead, other = store.outbox(), store.outbox()
    dead.take(3, MUCH)
    store.kill_relay(dead)
    assert _numbers(other.take(MANY, MUCH)) == [1, 2, 3, 4, 5, 6]


def test_leases_that_are_given_back_are_free(store: Store) -> None:
    """A relay that ends, or that cannot reach its sink, lets the next one go on at once."""
    commit(store, store.lane(), 5)
    one, other = store.outbox(), store.outbox()
    taken = one.take(3, MUCH)
    one.release()
    assert _numbers(other.take(2, MUCH)) == [1, 2]
    assert one.delivered(taken) == [taken[0].stream_id]


def test_a_parked_record_is_out_of_the_way_and_not_lost(store: Store) -> None:
    """It stays committed with the sink's answer beside it, counts as parked, and the others go on."""
    commit(store, store.lane(), 3)
    outbox = store.outbox()
    first, bad, *_ = outbox.take(MANY, MUCH)
    outbox.delivered([first])
    assert outbox.park(bad, "400 Bad Request")
    assert _numbers(outbox.take(MANY, MUCH)) == [3, 4]
    assert _delivery_of(store, bad.record_id) == "parked"
    assert outbox.parked_count() == store.reads.outbox().parked == 1
    assert store.rows("SELECT number, reason FROM parked_records") == [(2, "400 Bad Request")]
    (parked,) = outbox.parked(None, MANY)
    assert (parked.record_id, parked.log_record) == (bad.record_id, bad.log_record)
    outbox.answered(parked, "413 Content Too Large")
    assert store.rows("SELECT reason FROM parked_records") == [("413 Content Too Large",)]
    outbox.unpark(parked)
    assert _delivery_of(store, bad.record_id) == "delivered"
    assert outbox.parked_count() == 0


def test_only_the_next_record_of_a_stream_can_be_parked(store: Store) -> None:
    """Parking never skips a record: one further on is refused, and neither cursor nor list changes."""
    commit(store, store.lane(), 3)
    outbox = store.outbox()
    taken = outbox.take(MANY, MUCH)
    assert not outbox.park(taken[1], "refused")
    assert outbox.parked_count() == 0
    assert _numbers(outbox.take(MANY, MUCH)) == [1, 2, 3, 4]


def test_parked_records_are_listed_page_by_page(store: Store) -> None:
    """Whoever sends them again sees each once, ordered by stream and number."""
    for _ in range(2):
        commit(store, store.lane(), 2)
    outbox = store.outbox()
    while taken := outbox.take(1, MUCH):
        assert outbox.park(taken[0], "refused")
    seen: list[OutboxRecord] = []
    while page := outbox.parked(seen[-1] if seen else None, 4):
        seen += page
    assert [(each.stream_id, each.number) for each in seen] == [each[:2] for each in committed(store)]


def test_a_checkpoint_waits_for_the_records_that_it_names(store: Store) -> None:
    """It is handed out when all of them are delivered or parked, those of other streams and relays included."""
    one, two = store.lane(), store.lane()
    commit(store, one, 2)
    commit(store, two, 2)
    store.checkpoints(one).write()
    commit(store, one)
    relay, other = store.outbox(), store.outbox()
    first = relay.take(4, MUCH)
    rest = other.take(MANY, MUCH)
    assert rest == []
    second = relay.take(MANY, MUCH)
    assert {record.stream_id for record in first} | {record.stream_id for record in second} == {
        stream_id for stream_id, *_ in committed(store)
    }
    checkpoint = _checkpoint_of(store)
    assert checkpoint not in _places(first) + _places(second)
    held = next(record for record in second if record.stream_id != checkpoint[0])
    relay.delivered([record for record in second if record.stream_id == checkpoint[0]])
    assert checkpoint not in _places(relay.take(MANY, MUCH))
    relay.delivered([record for record in second if record.stream_id == held.stream_id][:-1])
    assert checkpoint not in _places(relay.take(MANY, MUCH))
    (last,) = [record for record in relay.take(MANY, MUCH) if record.stream_id == held.stream_id]
    assert relay.park(last, "refused")
    assert checkpoint in _places(relay.take(MANY, MUCH))


def test_a_checkpoint_comes_in_no_batch_with_what_it_names(store: Store) -> None:
    """Also of its own stream: the records before it are acknowledged before it is sent."""
    lane = store.lane()
    commit(store, lane, 2)
    store.checkpoints(lane).write()
    commit(store, lane)
    outbox = store.outbox()
    before = outbox.take(MANY, MUCH)
    assert _numbers(before) == [1, 2, 3]
    outbox.delivered(before)
    assert _numbers(outbox.take(MANY, MUCH)) == [4, 5]


def test_a_checkpoint_waits_for_one_that_it_names(store: Store) -> None:
    """Checkpoints of two writers are delivered one after the other."""
    one, two = store.lane(), store.lane()
    commit(store, one)
    commit(store, two)
    writer, successor = store.checkpoints(one), store.checkpoints(two)
    writer.write()
    writer.release()
    store.clock.advance(60)
    assert successor.write() is not None
    outbox = store.outbox()
    order = []
    while taken := outbox.take(MANY, MUCH):
        order.append([record.record_id for record in taken])
        outbox.delivered(taken)
    checkpoints = [row[0] for row in store.rows("SELECT record_id FROM audit_checkpoints ORDER BY number")]
    turns = [next(turn for turn, ids in enumerate(order) if one_id in ids) for one_id in checkpoints]
    assert turns == sorted(set(turns))
    assert store.reads.outbox().depth == 0


def test_a_neighbour_is_the_nearest_record_that_was_delivered(store: Store) -> None:
    """To compare with: before it in its stream and not parked, else one of another stream, else none."""
    commit(store, store.lane(), 4)
    outbox = store.outbox()
    taken = outbox.take(MANY, MUCH)
    assert outbox.neighbour(taken[0]) is None
    outbox.delivered(taken[:2])
    outbox.park(taken[2], "refused")
    beside = outbox.neighbour(taken[3])
    assert beside is not None
    assert (beside.number, beside.log_record) == (2, taken[1].log_record)
    assert outbox.neighbour(taken[0]) is None
    commit(store, store.lane())
    other = next(record for record in outbox.take(MANY, MUCH) if record.stream_id != beside.stream_id)
    # The record at the cursor of the only other stream is parked.
    elsewhere = outbox.neighbour(other)
    assert elsewhere is not None
    assert (elsewhere.stream_id, elsewhere.number) == (beside.stream_id, 2)


def test_what_was_delivered_can_be_read_again(store: Store) -> None:
    """From a number to the cursor and no further, parked records left out; the cursor stays where it is."""
    commit(store, store.lane(), 6)
    outbox = store.outbox()
    taken = outbox.take(5, MUCH)
    outbox.delivered(taken[:2])
    outbox.park(taken[2], "refused")
    outbox.delivered(taken[3:])
    stream_id = taken[0].stream_id
    assert _numbers(outbox.replay(stream_id, 2, MANY, MUCH)) == [2, 4, 5]
    assert _numbers(outbox.replay(stream_id, 1, 2, MUCH)) == [1, 2]
    assert _numbers(outbox.replay(stream_id, 1, MANY, 1)) == [1]
    assert outbox.replay(stream_id, 6, MANY, MUCH) == []
    assert _numbers(outbox.take(MANY, MUCH)) == [6, 7]
    with pytest.raises(NotFoundError, match="there is no stream nowhere"):
        outbox.replay("nowhere", 1, MANY, MUCH)


@pytest.mark.stores(SQLITE)
def test_a_busy_database_is_a_reason_to_try_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that cannot get the writer's lock is told so, and nothing has changed."""
    commit(store, store.lane(), 3)
    outbox = store.outbox()
    taken = outbox.take(MANY, MUCH)
    outbox._connection._connection.execute("PRAGMA busy_timeout = 0")
    holder = connect(store.path)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerBusyError):
        outbox.delivered(taken)
    holder.execute("ROLLBACK")
    holder.close()
    assert store.reads.outbox().depth == 4
    assert outbox.delivered(taken) == []


def test_the_events_that_wait_are_checkpoints_only(store: Store) -> None:
    """The opening of a stream and its close travel like any other record."""
    lane = store.lane()
    commit(store, lane)
    lane.close()
    events = store.rows("SELECT event_name FROM audit_records ORDER BY number")
    assert (names.EVENT_AUDIT_STREAM_CLOSE,) in events
    assert len(store.outbox().take(MANY, MUCH)) == len(events)


def _checkpoint_of(store: Store) -> tuple[str, int]:
    ((stream_id, number),) = store.rows(
        "SELECT stream_id, number FROM audit_records WHERE event_name = 'audit.checkpoint'"
    )
    return stream_id, number
