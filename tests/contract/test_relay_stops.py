"""What relays leave behind that stop while others do, or do not: nothing, and nobody waits for long."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pytest

from service.ports import Lag, Outbox
from service.relay import Relay
from telemetry.delivery.answers import Accepted, Answer
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import Arrived, FakeSink, commit, committed, relay_over
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

PATIENCE_S = 30
GRACE_S = 120


class Watched:
    """An outbox whose looks at the backlog are counted, and after the first of which something may happen."""

    def __init__(self, outbox: Outbox, then: Callable[[], object] = lambda: None) -> None:
        self._outbox = outbox
        self._then = then
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    def backlog(self) -> Sequence[Lag]:
        seen = self._outbox.backlog()
        self.looks += 1
        if self.looks == 1:
            self._then()
        return seen


class HangingSink(FakeSink):
    """A sink that keeps everybody waiting until it is told to answer."""

    def __init__(self) -> None:
        super().__init__(self._late)
        self.asked = threading.Event()
        self.answers = threading.Event()

    def _late(self, _: Sequence[Arrived]) -> Answer:
        self.asked.set()
        assert self.answers.wait(GRACE_S)
        return Accepted()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for what happens at the same time."""
    with ThreadPoolExecutor() as pool:
        yield pool


def _stops(relay: Relay, lane: Any, writer: Any) -> bool:
    """Stop as a process does: close the stream, write the last checkpoint, deliver."""
    lane.close(writer.write_last)
    return relay.drain(GRACE_S)


def _stops_with_others(relay: Relay, lane: Any, writer: Any, together: threading.Barrier) -> bool:
    """Stop as a serving process does, when the others do."""
    together.wait()
    lane.close(writer.write_last)
    return relay.stop(PATIENCE_S)


def test_what_a_process_commits_last_is_not_passed_over_by_two_that_stop(
    store: Store, threads: ThreadPoolExecutor
) -> None:
    """One leaves its last records to another that lives and holds their stream, and that had nothing more to do."""
    lane = store.lane("first")
    writer = store.checkpoints(lane)
    sink, holding, own = FakeSink(), store.outbox(), Watched(store.outbox())

    def first_stops() -> None:
        stopping = threads.submit(_stops, relay_over(store, sink, own), lane, writer)
        poll_until(lambda: own.looks > 0, "the first one to look", PATIENCE_S)
        store.clock.advance(2)
        holding.renew()
        assert stopping.result(PATIENCE_S)

    commit(store, lane, 3)
    assert relay_over(store, sink, Watched(holding, first_stops)).drain(PATIENCE_S)
    assert store.reads.outbox().depth == 0
    assert sink.kept == committed(store)


def test_nothing_is_left_when_all_processes_stop_at_the_same_time(store: Store, threads: ThreadPoolExecutor) -> None:
    """Whoever closes, signs and delivers in which order: nothing waits for the next start."""
    sink = FakeSink()
    for turn in range(8):
        lanes = [store.lane(f"process-{turn}-{number}") for number in range(3)]
        writers = [store.checkpoints(lane) for lane in lanes]
        relays = [relay_over(store, sink, poll_s=0.05, linger_s=0.001) for _ in lanes]
        for relay in relays:
            relay.start()
        for lane in lanes:
            commit(store, lane, 5)
        together = threading.Barrier(len(lanes))
        ended = threads.map(_stops_with_others, relays, lanes, writers, repeat(together))
        assert list(ended) == [True] * len(lanes)
        assert store.reads.outbox().depth == 0, turn
    assert set(sink.kept) == set(committed(store))


def test_a_relay_that_lives_on_does_not_delay_a_stop(running_store: Store, threads: ThreadPoolExecutor) -> None:
    """What it holds is left to it as soon as it is seen to live, and so is the checkpoint that waits for that."""
    store, hanging = running_store, HangingSink()
    commit(store, store.lane("living"), 3)
    living = relay_over(store, hanging, poll_s=0.05, renew_s=0.1)
    living.start()
    assert hanging.asked.wait(PATIENCE_S)
    lane = store.lane("stopping")
    writer = store.checkpoints(lane)
    commit(store, lane, 3)
    stopping = relay_over(store, FakeSink())
    try:
        assert threads.submit(_stops, stopping, lane, writer).result(PATIENCE_S)
    finally:
        hanging.answers.set()
    poll_until(lambda: store.reads.outbox().depth == 0, "the other relay to deliver the rest", PATIENCE_S)
    assert living.stop(PATIENCE_S)


def test_what_a_dead_relay_held_is_taken_over_by_one_that_stops(
    running_store: Store, threads: ThreadPoolExecutor
) -> None:
    """Its leases are not renewed, so that a stop waits for their end, which comes within the grace."""
    store = running_store
    commit(store, store.lane(), 3)
    dead = store.outbox("dead")
    assert dead.take(100, 1 << 20)
    own, sink = Watched(store.outbox()), FakeSink()
    draining = threads.submit(relay_over(store, sink, own).drain, GRACE_S)
    poll_until(lambda: own.looks > 2 or draining.done(), "some looks", PATIENCE_S)
    assert not draining.done()
    store.clock.advance(11)
    assert draining.result(PATIENCE_S)
    assert sink.kept == committed(store)


def test_a_stop_does_not_wait_for_a_process_that_goes_on(store: Store, threads: ThreadPoolExecutor) -> None:
    """While somebody commits without an end, what was there at the stop is delivered, and the stop ends."""
    lane = store.lane()
    commit(store, lane, 3)
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            commit(store, lane, 1)

    going_on = threads.submit(go_on)
    before = committed(store)
    sink = FakeSink()
    try:
        assert threads.submit(relay_over(store, sink, max_records=2).drain, GRACE_S).result(PATIENCE_S)
    finally:
        over.set()
    going_on.result(PATIENCE_S)
    assert set(sink.kept) >= set(before)
