"""`auditrace relay --replay-all` fills a new sink: nothing is left out, wherever it is ended and begun again."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.errors import LedgerBusyError
from service.ports import OutboxRecord, ReplayBegun, Replays
from service.relay import Relay, Replayed, StallTimeout
from telemetry.audit.verify import read_copy, verify
from telemetry.delivery.answers import Accepted, Answer, Refused, Unreachable
from telemetry.delivery.archive import ArchiveSink
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.deliveries import Arrived, FakeSink, commit, committed, drain, relay_over
from tests.support.ids import Seconds
from tests.support.ledger_maker import KEY

pytestmark = pytest.mark.stores(*BOTH)

BUSY = Refused(503, "503", "503 Service Unavailable")


class Killed(BaseException):
    """The process ends here, without a word."""


class Seen:
    """A `ReplayObserver` that keeps what it gets, and calls what a test wants to happen meanwhile."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.progress: list[tuple[int, int]] = []
        self.refusals: list[tuple[int, str]] = []
        self._then = then

    def progressed(self, done: int, total: int) -> None:
        self.progress.append((done, total))
        self._then()

    def refused(self, record: OutboxRecord, answer: str) -> None:
        self.refusals.append((record.number, answer))


def _replay(
    relay: Relay,
    replays: Replays,
    watch: Seen | None = None,
    seconds: Seconds | None = None,
    *,
    from_start: bool = False,
    record: Callable[[ReplayBegun], object] = lambda _: None,
) -> Replayed:
    clock = seconds or Seconds()
    timeout = StallTimeout(20.0, clock, clock.wait)
    return relay.replay_all(replays, timeout, watch or Seen(), record, from_start=from_start)


@pytest.fixture
def ledger(store: Store) -> Store:
    """Ninety records in three streams, with checkpoints between them, all delivered to a sink that is left."""
    lanes = [store.lane() for _ in range(3)]
    writers = [store.checkpoints(lane) for lane in lanes]
    for turn in range(12):
        commit(store, lanes[turn % 3], 7)
        if turn % 4 == 3:
            assert writers[turn % 3].write() is not None
            writers[turn % 3].release()
    drain(relay_over(store, FakeSink()))
    return store


def _cursors(store: Store) -> Sequence[tuple[Any, ...]]:
    return store.rows("SELECT stream_id, number FROM delivery_cursors ORDER BY stream_id")


def test_a_new_sink_gets_everything(ledger: Store) -> None:
    """Each record once and unchanged, of each stream in order; no cursor moves, and how it goes is told."""
    sink, seen, before = FakeSink(), Seen(), _cursors(ledger)
    done = _replay(relay_over(ledger, sink, max_records=20), ledger.replays(), seen)
    assert done == Replayed(90, 0, 90, 0, None)
    assert sorted(sink.kept) == committed(ledger)
    for stream_id, _ in before:
        numbers = [each.number for each in sink.kept if each.stream_id == stream_id]
        assert numbers == sorted(numbers)
    assert _cursors(ledger) == before
    assert seen.progress == [(0, 90), (20, 90), (40, 90), (60, 90), (80, 90), (90, 90)]


def test_it_is_recorded_before_anything_is_sent(ledger: Store) -> None:
    """It tells what an earlier run sent; while the record cannot be committed, nothing is sent."""
    sink, begun = FakeSink(), list[ReplayBegun]()

    def record(one: ReplayBegun) -> None:
        assert len(sink.kept) == len(begun) * 20
        begun.append(one)

    def refuse(_one: ReplayBegun) -> None:
        raise LedgerBusyError("the ledger is busy")

    held = _replay(relay_over(ledger, sink), ledger.replays(), record=refuse)
    assert (held.accepted, sink.kept, held.reason) == (0, [], "the ledger is busy")

    def end() -> None:
        if sink.kept:
            raise Killed

    for seen in (Seen(end), Seen()):
        with suppress(Killed):
            _replay(relay_over(ledger, sink, max_records=20), ledger.replays(), seen, record=record)
    assert begun == [ReplayBegun(0, 0, 90), ReplayBegun(20, 0, 90)]
    assert len(sink.kept) == 90


def test_the_copy_verifies_all_the_way(ledger: Store, tmp_path: Path) -> None:
    """A checkpoint comes behind what it names, so that nobody who verifies while it runs is alarmed."""
    archive = tmp_path / "archive"

    def verifies() -> None:
        report = verify(read_copy([archive]), public_keys=[KEY.public_key()])
        assert not [finding for finding in report.findings if finding.code != "record_unanchored"]

    sink = ArchiveSink(archive / "audit.jsonl", ledger.clock)
    _replay(relay_over(ledger, sink, max_records=4), ledger.replays(), Seen(verifies))
    report = verify(read_copy([archive]), public_keys=[KEY.public_key()])
    assert (report.verdict, report.records, report.checkpoints) == ("intact", 90, 3)


@pytest.mark.parametrize("requests", [0, 1, 5, 8])
def test_one_that_was_killed_goes_on_where_it_was(ledger: Store, requests: int) -> None:
    """At most one request is sent a second time, and nothing is passed over."""
    taken = iter(range(requests))

    def dying(_: Sequence[Arrived]) -> Answer:
        if next(taken, None) is None:
            raise Killed
        return Accepted()

    sink = FakeSink(dying)
    with pytest.raises(Killed):
        _replay(relay_over(ledger, sink, max_records=10), ledger.replays())
    sink.answer = lambda _: Accepted()
    done = _replay(relay_over(ledger, sink, max_records=10), ledger.replays())
    assert (done.earlier, done.accepted, done.total, done.reason) == (requests * 10, 90 - requests * 10, 90, None)
    assert sorted(sink.kept) == committed(ledger)


def test_one_that_was_killed_before_it_kept_its_place_sends_the_batch_again(
    ledger: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives twice is identical."""
    sink, replays = FakeSink(), ledger.replays()

    def dying(_: int) -> None:
        raise Killed

    monkeypatch.setattr(replays, "answered", dying)
    with pytest.raises(Killed):
        _replay(relay_over(ledger, sink, max_records=10), replays)
    assert _replay(relay_over(ledger, sink, max_records=10), ledger.replays()).earlier == 0
    assert len(sink.kept) == 100
    assert sorted(set(sink.kept)) == committed(ledger)


def test_it_holds_on_through_outages(ledger: Store) -> None:
    """A sink that is full for a while, as a collector is, gets small requests until it takes them again."""
    answers = iter([Accepted(), BUSY, BUSY, Unreachable("timeout", "no answer"), Accepted(), BUSY])
    sizes: list[int] = []

    def shaky(records: Sequence[Arrived]) -> Answer:
        sizes.append(len(records))
        return next(answers, Accepted())

    sink = FakeSink(shaky)
    assert _replay(relay_over(ledger, sink, max_records=32), ledger.replays()).reason is None
    assert sizes[:8] == [32, 32, 1, 1, 1, 2, 1, 2]
    assert sorted(sink.kept) == committed(ledger)


def test_a_sink_that_takes_nothing_more_ends_it(ledger: Store) -> None:
    """After the grace, with its answer; the next run goes on there."""
    taken = iter(range(3))
    sink = FakeSink(lambda _: BUSY if next(taken, None) is None else Accepted())
    done = _replay(relay_over(ledger, sink, max_records=10), ledger.replays())
    assert (done.accepted, done.reason) == (30, "503 Service Unavailable")
    sink.answer = lambda _: Accepted()
    again = _replay(relay_over(ledger, sink, max_records=10), ledger.replays())
    assert (again.earlier, again.accepted, again.reason) == (30, 60, None)
    assert sorted(sink.kept) == committed(ledger)


def test_a_stop_ends_it_between_two_requests(ledger: Store) -> None:
    """It says so, and the next run goes on there."""
    seconds, sink = Seconds(), FakeSink()
    seen = Seen(lambda: setattr(seconds, "is_stopped", len(sink.requests) == 3))
    done = _replay(relay_over(ledger, sink, max_records=10), ledger.replays(), seen, seconds)
    assert (done.accepted, done.reason) == (30, "a stop was asked for")
    assert _replay(relay_over(ledger, sink), ledger.replays()).earlier == 30
    assert sorted(sink.kept) == committed(ledger)


def test_what_was_not_delivered_is_left_to_the_relays(ledger: Store) -> None:
    """Parked records, those that wait, and those that are committed while it runs."""
    lane = ledger.lane()
    sink = FakeSink(lambda each: Refused(400, "400", "400") if any(one.number == 5 for one in each) else Accepted())
    commit(ledger, lane, 9)
    drain(relay_over(ledger, sink))
    assert ledger.reads.outbox().parked == 1
    ((parked,),) = ledger.rows("SELECT record_id FROM parked_records JOIN audit_records USING (stream_id, number)")
    delivered = [each for each in committed(ledger) if each.record_id != parked]
    commit(ledger, lane, 40)
    fresh = FakeSink()
    seen = Seen(lambda: commit(ledger, lane, 1))
    done = _replay(relay_over(ledger, fresh, max_records=7), ledger.replays(), seen)
    assert (done.accepted, done.total, done.reason) == (len(delivered), len(delivered), None)
    assert sorted(fresh.kept) == delivered


def test_it_runs_beside_relays(ledger: Store) -> None:
    """A relay delivers what is committed meanwhile to the same sink: together they fill it."""
    lane, sink = ledger.lane(), FakeSink()
    relay = relay_over(ledger, sink, poll_s=0.01, linger_s=0.001)
    relay.start()
    done = _replay(relay_over(ledger, sink, max_records=5), ledger.replays(), Seen(lambda: commit(ledger, lane, 3)))
    assert done.reason is None
    assert relay.stop(60)
    assert sorted(set(sink.kept)) == committed(ledger)


def test_what_relays_deliver_meanwhile_is_counted_among_the_whole(ledger: Store) -> None:
    """Records that were committed before it began and delivered after are sent too: never more than there are."""
    commit(ledger, ledger.lane(), 30)
    seen = Seen(lambda: drain(relay_over(ledger, FakeSink())))
    done = _replay(relay_over(ledger, FakeSink(), max_records=20), ledger.replays(), seen)
    assert (done.accepted, done.reason) == (done.total, None)
    assert done.total > 90
    assert [(sent, total) for sent, total in seen.progress if sent > total] == []


def test_two_at_a_time_pass_over_nothing(ledger: Store) -> None:
    """Each sends what the other sends too; when one ends, the other goes on."""
    sink = FakeSink()

    def second() -> Iterator[None]:
        yield
        _replay(relay_over(ledger, sink, max_records=7), ledger.replays())
        yield from iter(lambda: None, 0)

    turns = second()
    done = _replay(relay_over(ledger, sink, max_records=10), ledger.replays(), Seen(lambda: next(turns)))
    assert done.reason is None
    assert len(sink.kept) >= 170
    assert sorted(set(sink.kept)) == committed(ledger)
    assert ledger.rows("SELECT count(*) FROM leases WHERE substr(name, 1, 6) = 'replay'") == [(0,)]


def test_each_sink_has_a_place_of_its_own(ledger: Store) -> None:
    """A run for another sink begins at the first record, and so does one after a run that ended."""
    taken = iter(range(2))
    sink = FakeSink(lambda _: BUSY if next(taken, None) is None else Accepted())
    assert _replay(relay_over(ledger, sink, max_records=10), ledger.replays("one")).accepted == 20
    assert _replay(relay_over(ledger, FakeSink()), ledger.replays("two")) == Replayed(90, 0, 90, 0, None)
    assert _replay(relay_over(ledger, FakeSink()), ledger.replays("two")).earlier == 0
    assert _replay(relay_over(ledger, FakeSink()), ledger.replays("one")).earlier == 20


def test_one_can_begin_anew(ledger: Store) -> None:
    """For a sink that lost what an earlier run sent."""
    taken = iter(range(2))
    sink = FakeSink(lambda _: BUSY if next(taken, None) is None else Accepted())
    assert _replay(relay_over(ledger, sink, max_records=10), ledger.replays()).accepted == 20
    assert _replay(relay_over(ledger, FakeSink()), ledger.replays(), from_start=True) == Replayed(90, 0, 90, 0, None)


def test_what_the_sink_refuses_alone_is_named(ledger: Store) -> None:
    """The others are sent; nothing is parked; and a later run still tells how many are missing."""
    bad = committed(ledger)[12]
    taken = iter(range(6))

    def picky(records: Sequence[Arrived]) -> Answer:
        if next(taken, None) is None:
            return BUSY
        return Refused(400, "400", "400 Bad Request") if bad in records else Accepted()

    sink, seen = FakeSink(picky), Seen()
    while not seen.refusals:
        taken = iter(range(60))
        done = _replay(relay_over(ledger, sink, max_records=40), ledger.replays(), seen)
    assert seen.refusals == [(bad.number, "400 Bad Request")]
    assert (done.refused, done.accepted) == (1, 89)
    assert sorted(set(sink.kept)) == [each for each in committed(ledger) if each != bad]
    assert ledger.reads.outbox().parked == 0


def test_a_refusal_of_an_earlier_run_is_not_forgotten(ledger: Store) -> None:
    """The number of what is missing stays, however often it is ended and begun again."""
    bad = committed(ledger)[3]
    is_away = [False]

    def picky(records: Sequence[Arrived]) -> Answer:
        if is_away[0]:
            return BUSY
        return Refused(400, "400", "400 Bad Request") if bad in records else Accepted()

    seen = Seen()
    seen._then = lambda: is_away.__setitem__(0, bool(seen.refusals))
    sink = FakeSink(picky)
    first = _replay(relay_over(ledger, sink, max_records=10), ledger.replays(), seen)
    assert (first.refused, first.reason) == (1, "503 Service Unavailable")
    is_away[0] = False
    seen._then = lambda: None
    assert _replay(relay_over(ledger, sink), ledger.replays(), seen).refused == 1


def test_a_sink_that_refuses_everything_is_an_outage(ledger: Store) -> None:
    """A wrong URL that answers 400: no record is named as refused for it."""
    seen = Seen()
    sink = FakeSink(lambda _: Refused(400, "400", "400 Bad Request"))
    done = _replay(relay_over(ledger, sink), ledger.replays(), seen)
    assert (done.accepted, done.refused, done.reason) == (0, 0, "400 Bad Request")
    assert seen.refusals == []


@pytest.mark.stores(SQLITE)
def test_a_database_that_is_busy_is_waited_for(ledger: Store) -> None:
    """Another writer holds it while the place is to be kept: nothing is sent twice for it."""
    assert ledger.kind == SQLITE
    sink, replays = FakeSink(), ledger.replays()
    relay = relay_over(ledger, sink, max_records=50)
    replays._connection._connection.execute("PRAGMA busy_timeout = 0")
    other = ledger.outbox()
    other._connection._connection.execute("BEGIN IMMEDIATE")

    class Freeing(Seconds):
        def wait(self, seconds: float) -> bool:
            if seconds > 0 and other._connection._connection.in_transaction:
                other._connection._connection.execute("ROLLBACK")
            return super().wait(seconds)

    assert _replay(relay, replays, None, Freeing()).reason is None
    assert sorted(sink.kept) == committed(ledger)


@pytest.mark.stores(SQLITE)
def test_a_database_that_is_replaced_fills_no_sink(ledger: Store, tmp_path: Path) -> None:
    """What is not the ledger any more is not sent as if it were; once it is back, the next run goes on."""
    path, kept, sink = Path(ledger.database.removeprefix("sqlite:///")), tmp_path / "kept", FakeSink()

    def replace() -> None:
        if not kept.exists():
            path.rename(kept)
            shutil.copy(kept, path)

    done = _replay(relay_over(ledger, sink, max_records=10), ledger.replays(), Seen(replace))
    assert (done.accepted, sink.kept) == (0, [])
    assert str(done.reason).startswith("the database's file, or its log, was moved, removed or replaced")
    kept.replace(path)
    assert _replay(relay_over(ledger, sink), ledger.replays()).accepted == 90
