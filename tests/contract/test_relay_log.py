"""What failed and works again is logged once by the relay, however many attempts lie in between."""

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import cycle

import pytest

from telemetry.delivery.answers import Accepted, Answer, Refused, Unreachable
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.deliveries import Arrived, FakeSink, commit, relay_over
from tests.support.outages import cursors_locked
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

BUSY = Refused(503, "503", "503 Service Unavailable")
SLOW = Unreachable("timeout", "no answer within 10 s")


class Lines:
    """The relay's lines in the log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __iter__(self) -> Iterator[str]:
        return iter([record.getMessage() for record in self._caplog.records if record.name.startswith("service.relay")])


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What the relay says."""
    caplog.set_level(logging.INFO, logger="service.relay")
    return Lines(caplog)


@pytest.mark.stores(SQLITE)
def test_reasons_that_take_turns_are_logged_once_each(store: Store, lines: Lines) -> None:
    """A sink that refuses and stalls by turns has one line for each, and one when it works again."""
    commit(store, store.lane(), 3)
    answers = cycle([BUSY, SLOW])
    sink = FakeSink(lambda _: next(answers))
    relay = relay_over(store, sink)
    for _ in range(20):
        relay.once()
    sink.answer = lambda _: Accepted()
    assert relay.drain(60)
    held, stalled, again = lines
    assert "503 Service Unavailable" in held
    assert "no answer within 10 s" in stalled
    assert "delivered again to memory" in again


def test_the_return_is_logged_once_it_holds_with_what_is_left(store: Store, lines: Lines) -> None:
    """A sink that takes a small request and refuses the next one has not come back; then the backlog is told."""
    commit(store, store.lane(), 199)
    answers = iter([BUSY, Accepted(), BUSY, Accepted(), Accepted(), BUSY])
    sink = FakeSink(lambda _: next(answers, Accepted()))
    relay = relay_over(store, sink, max_records=16)
    for _ in range(6):
        relay.once()
    assert len(list(lines)) == 1
    assert "503" in relay.state().text
    # One record, then twice as many with each success, up to what fits.
    for _ in range(5):
        assert relay.once()
    _, again = lines
    left = store.reads.outbox().depth
    assert left > 100
    assert f"{left + 16} are left to deliver" in again
    assert relay.state().text == ""
    assert relay.drain(60)
    assert len(list(lines)) == 2


def test_the_next_outage_is_logged_again(store: Store, lines: Lines) -> None:
    """Each of them has its beginning and its end."""
    lane, sink = store.lane(), FakeSink()
    relay = relay_over(store, sink)
    for _ in range(2):
        commit(store, lane, 3)
        sink.answer = lambda _: BUSY
        for _ in range(3):
            relay.once()
        sink.answer = lambda _: Accepted()
        assert relay.drain(60)
    assert [("503" in line, "delivered again" in line) for line in lines] == [(True, False), (False, True)] * 2


def test_a_database_that_is_away_is_logged_once(store: Store, lines: Lines) -> None:
    """Not with each renewal and each release of leases."""
    commit(store, store.lane(), 3)
    outbox, sink = store.outbox(), FakeSink()
    relay = relay_over(store, sink, outbox, renew_s=0.01, poll_s=0.01)
    assert outbox.take(1, 1)
    with cursors_locked(store, outbox):
        # Leases that are to be renewed soon, so that this fails too.
        store.clock.advance(6)
        relay.start()
        poll_until(lambda: relay.state().failures >= 7, "some failures")
    poll_until(lambda: len(sink.kept) >= 4 and relay.state().text == "", "the records to be delivered")
    assert relay.stop(60)
    said = list(lines)
    assert sum("audit records are held" in line for line in said) == 1
    assert sum("leases could not be" in line for line in said) <= 1
    assert sum("delivered again" in line for line in said) == 1
    assert len(said) <= 3


@pytest.mark.stores(SQLITE)
def test_a_mistake_in_the_code_is_logged_once_with_its_trace(
    store: Store, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reports it needs the trace, and not with every attempt."""
    commit(store, store.lane(), 3)

    def broken(_: Sequence[Arrived]) -> Answer:
        raise ZeroDivisionError("nobody thought of it")

    relay = relay_over(store, FakeSink(broken))
    for _ in range(5):
        relay.once()
    assert len(list(lines)) == 2
    assert sum(record.exc_info is not None for record in caplog.records) == 1


def test_nothing_is_said_of_a_database_that_this_process_has_closed(store: Store, lines: Lines) -> None:
    """A relay that is told to wait no longer may still have an answer outstanding when its database is closed."""
    asked, answers = threading.Event(), threading.Event()

    def late(_: Sequence[Arrived]) -> Answer:
        asked.set()
        assert answers.wait(60)
        return Accepted()

    commit(store, store.lane(), 3)
    sink = FakeSink(late)
    relay = relay_over(store, sink)
    others = threading.enumerate()
    relay.start()
    assert asked.wait(60)
    relay.hurry()
    relay.stop(3600)
    relay.close()
    answers.set()
    for thread in set(threading.enumerate()).difference(others):
        thread.join(60)
    assert list(lines) == []
