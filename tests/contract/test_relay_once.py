"""`auditrace relay --once` delivers all that is there, however long it takes; else it says why not and what is left."""

import threading
from collections.abc import Callable, Sequence

import pytest

from service.relay import Drained, Relay, StallTimeout
from telemetry.delivery.answers import Accepted, Answer, Refused, Unreachable
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import Arrived, FakeSink, commit, committed, relay_over
from tests.support.ids import Seconds
from tests.support.outages import cursors_locked

pytestmark = pytest.mark.stores(*BOTH)


def _once(relay: Relay, seconds: Seconds, patience_s: float = 20.0) -> Drained:
    return relay.deliver_all(StallTimeout(patience_s, seconds, seconds.wait))


def _left(done: Drained) -> int:
    assert done.left is not None
    return sum(lag.committed - lag.delivered for lag in done.left)


def _after(count: int, answer: Answer) -> Callable[[Sequence[Arrived]], Answer]:
    """Return what takes so many requests, and answers this to all that follow."""
    taken = iter(range(count))
    return lambda _: answer if next(taken, None) is None else Accepted()


def test_a_large_backlog_takes_the_time_that_it_takes(store: Store) -> None:
    """A sink that is slow, and takes some records again and again, gets all of them: the grace is for one that stalls.

    With a limit for the whole, a loaded machine ended it with most of the records delivered.
    """
    seconds = Seconds()

    def slowly(_: Sequence[Arrived]) -> Answer:
        seconds.now += 15
        return Accepted()

    commit(store, store.lane(), 99)
    sink = FakeSink(slowly)
    done = _once(relay_over(store, sink, max_records=10), seconds)
    assert done == Drained("memory", 100, 0, [], None)
    assert seconds.now >= 150
    assert sink.kept == committed(store)


def test_failures_in_between_begin_the_time_anew(store: Store) -> None:
    """A sink that fails for less than the grace, then takes something, is gone on with."""
    seconds = Seconds()
    turns = iter(range(1000))

    def shaky(_: Sequence[Arrived]) -> Answer:
        seconds.now += 5
        return Unreachable("timeout", "no answer within 5 s") if next(turns) % 3 else Accepted()

    commit(store, store.lane(), 19)
    assert _once(relay_over(store, FakeSink(shaky), max_records=2), seconds).reason is None
    assert store.reads.outbox().depth == 0


@pytest.mark.parametrize(
    "answer",
    [
        Refused(503, "503", "503 Service Unavailable"),
        Refused(429, "429", "429 Too Many Requests", retry_after_s=3600),
        Refused(400, "400", "400 Bad Request"),
        Refused(401, "401", "401 Unauthorized"),
        Unreachable("ConnectError", "connection refused"),
        Unreachable("timeout", "no answer within 10 s"),
    ],
    ids=str,
)
def test_a_sink_that_takes_nothing_more_is_named_with_what_is_left(store: Store, answer: Answer) -> None:
    """It ends after the grace, with the sink's last answer, how many were delivered and which streams are left."""
    receipt = commit(store, store.lane(), 29)[0]
    done = _once(relay_over(store, FakeSink(_after(2, answer)), max_records=10), Seconds())
    assert (done.delivered, done.parked, _left(done), done.reason) == (20, 0, 10, str(answer))
    assert [(lag.stream_id, lag.delivered, lag.committed) for lag in done.left or ()] == [(receipt.stream_id, 20, 30)]
    again = _once(relay_over(store, FakeSink()), Seconds())
    assert (again.delivered, again.reason) == (10, None)


def test_a_relay_that_died_with_its_leases_is_waited_for(running_store: Store) -> None:
    """What another one holds that does not renew is left with that reason, if the grace is shorter than the lease."""
    store = running_store
    commit(store, store.lane(), 5)
    other = store.outbox()
    assert other.take(100, 1 << 20)
    done = _once(relay_over(store, FakeSink()), Seconds(), patience_s=1.0)
    assert (done.delivered, _left(done)) == (0, 6)
    assert done.reason is not None
    assert "another relay holds them" in done.reason


def test_what_another_relay_holds_and_renews_is_left_to_it(running_store: Store) -> None:
    """That is no failure; how many it is can be told."""
    store = running_store
    commit(store, store.lane(), 5)
    other, seconds = store.outbox(), Seconds()
    assert other.take(100, 1 << 20)

    def wait(pause_s: float) -> bool:
        if pause_s > 0:
            store.rows("SELECT 1")
            other.release()
            assert other.take(100, 1 << 20)
        return seconds.wait(pause_s)

    done = relay_over(store, FakeSink()).deliver_all(StallTimeout(20.0, seconds, wait))
    assert (done.delivered, _left(done), done.reason) == (0, 6, None)


def test_leases_are_renewed_while_the_sink_is_slow(store: Store) -> None:
    """Nobody takes over the streams of a relay that waits for an answer."""
    commit(store, store.lane(), 5)
    other = store.outbox()
    taken: list[int] = []

    def slowly(_: Sequence[Arrived]) -> Answer:
        for _turn in range(3):
            ((before,),) = store.rows("SELECT until_ns FROM delivery_cursors")
            store.clock.advance(6)
            while store.rows("SELECT until_ns FROM delivery_cursors") == [(before,)]:
                threading.Event().wait(0.01)
            taken.append(len(other.take(100, 1 << 20)))
        return Accepted()

    done = _once(relay_over(store, FakeSink(slowly), renew_s=0.02), Seconds())
    assert (done.delivered, done.reason, taken) == (6, None, [0, 0, 0])


def test_a_database_that_cannot_be_written_is_named(store: Store) -> None:
    """Records that the sink took, and whose cursors could not be moved, count as left."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    relay = relay_over(store, FakeSink(), outbox)
    assert outbox.take(1, 1)
    with cursors_locked(store, outbox):
        done = _once(relay, Seconds(), patience_s=1.0)
    assert (done.delivered, _left(done)) == (0, 6)
    assert done.reason is not None
    assert "ledger" in done.reason
    # Its leases could not be given back either.
    store.clock.advance(11)
    assert _once(relay_over(store, FakeSink()), Seconds()).reason is None


def test_a_stop_that_is_asked_for_ends_it(store: Store) -> None:
    """Between two requests; what was delivered stays delivered."""
    seconds = Seconds()

    def stopping(_: Sequence[Arrived]) -> Answer:
        seconds.is_stopped = True
        return Accepted()

    commit(store, store.lane(), 29)
    done = _once(relay_over(store, FakeSink(stopping), max_records=10), seconds)
    assert (done.delivered, _left(done), done.reason) == (10, 20, "a stop was asked for")
