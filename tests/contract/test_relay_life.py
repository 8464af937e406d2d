"""The relay as a thread: it delivers within moments, ends in time, survives what goes wrong, and blocks nobody."""

import threading
from collections import defaultdict
from pathlib import Path

import pytest

from telemetry.audit.verify import read_copy, verify
from telemetry.delivery.answers import Accepted, Sink, Unreachable
from telemetry.delivery.archive import ArchiveSink
from tests.support.both_stores import BOTH, Store
from tests.support.deliveries import FakeSink, commit, committed, got, relay_over
from tests.support.ledger_maker import KEY
from tests.support.otlp_sink import Answer, OtlpSink
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

PATIENCE_S = 30


def test_a_commit_wakes_the_relay(store: Store, server: OtlpSink, http: Sink) -> None:
    """What is committed arrives without being asked for, long before the next look around."""
    relay = relay_over(store, http, poll_s=3600, linger_s=0.01)
    lane = store.lane(on_commit=lambda _: relay.wake())
    relay.start()
    for count in (1, 5):
        commit(store, lane, count)
        poll_until(lambda: len(got(server)) == len(committed(store)), "the records to arrive", PATIENCE_S)
    assert relay.stop(PATIENCE_S)
    assert got(server) == committed(store)


def test_records_of_other_processes_are_found(store: Store, server: OtlpSink, http: Sink) -> None:
    """A command that commits and ends wakes nobody: the relay looks around by itself."""
    relay = relay_over(store, http, poll_s=0.01, linger_s=0.01)
    relay.start()
    lane = store.lane()
    commit(store, lane, 3)
    lane.close()
    poll_until(lambda: len(got(server)) == 5, "the records to arrive", PATIENCE_S)
    assert relay.stop(PATIENCE_S)


def test_a_stop_delivers_what_is_there(store: Store, server: OtlpSink, http: Sink) -> None:
    """All that was committed before the stop has arrived when it returns."""
    relay = relay_over(store, http, max_records=7, poll_s=3600)
    relay.start()
    lane = store.lane()
    commit(store, lane, 100)
    writer = store.checkpoints(lane)
    lane.close(writer.write_last)
    assert relay.stop(PATIENCE_S)
    assert got(server) == committed(store)
    assert store.reads.outbox().depth == 0


def test_a_stop_ends_in_time_when_the_sink_is_away(store: Store, server: OtlpSink, http: Sink) -> None:
    """What cannot be delivered within the grace is left to the next relay, at once."""
    relay = relay_over(store, http)
    commit(store, store.lane(), 5)
    server.script = lambda _: Answer(status=503)
    relay.start()
    assert not relay.stop(0.3)
    server.script = None
    assert relay_over(store, http).drain(PATIENCE_S)
    assert got(server) == committed(store)


def test_a_stop_does_not_wait_for_an_answer_that_does_not_come(store: Store, server: OtlpSink, http: Sink) -> None:
    """A sink that hangs delays the end of the process by the grace, not by its own timeout."""
    relay = relay_over(store, http)
    commit(store, store.lane(), 5)
    server.script = lambda _: Answer(hang=True)
    relay.start()
    poll_until(lambda: server.request_count > 0, "a request", PATIENCE_S)
    ended = threading.Event()
    stopping = threading.Thread(target=lambda: (relay.stop(0.2), ended.set()))
    stopping.start()
    # The sink's timeout is 20 s.
    assert ended.wait(15)
    assert store.reads.outbox().depth == 6


def test_a_relay_that_was_never_started_can_be_stopped(store: Store, server: OtlpSink, http: Sink) -> None:
    """A process that fails while it starts stops its parts all the same."""
    commit(store, store.lane(), 5)
    assert not relay_over(store, http).stop(PATIENCE_S)


def test_clients_never_wait_for_the_sink(store: Store, server: OtlpSink, http: Sink) -> None:
    """While a request hangs, lanes commit as ever, and the outbox grows."""
    relay = relay_over(store, http)
    lane = store.lane(on_commit=lambda _: relay.wake())
    commit(store, lane)
    server.script = lambda _: Answer(hang=True)
    relay.start()
    poll_until(lambda: server.request_count > 0, "a request", PATIENCE_S)
    assert len(commit(store, lane, 200)) == 200
    assert store.reads.outbox().depth == 202
    server.script = None
    relay.stop(0)


def test_the_thread_outlives_whatever_goes_wrong(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of is kept in the state, and tried again."""
    outbox = store.outbox()
    take = outbox.take
    monkeypatch.setattr(outbox, "take", lambda *_: 1 / 0)
    sink = FakeSink()
    relay = relay_over(store, sink, outbox, poll_s=0.01)
    commit(store, store.lane(), 3)
    relay.start()
    poll_until(lambda: "unexpected ZeroDivisionError" in relay.state().text, "the failure to show", PATIENCE_S)
    monkeypatch.setattr(outbox, "take", take)
    poll_until(lambda: len(sink.kept) == 4, "the records to arrive", PATIENCE_S)
    assert relay.stop(PATIENCE_S)
    assert relay.state().text == ""


def test_a_lease_is_renewed_while_an_answer_is_awaited(store: Store, server: OtlpSink, http: Sink) -> None:
    """A slow sink alone does not make another relay send the same records."""
    relay = relay_over(store, http, renew_s=0.02)
    commit(store, store.lane(), 3)
    server.script = lambda _: Answer(hang=True)
    relay.start()
    poll_until(lambda: server.request_count > 0, "a request", PATIENCE_S)
    other = store.outbox()
    for _ in range(3):
        ((before,),) = store.rows("SELECT until_ns FROM delivery_cursors")
        store.clock.advance(6)
        poll_until(
            lambda before=before: store.rows("SELECT until_ns FROM delivery_cursors") != [(before,)],
            "the lease to be renewed",
            PATIENCE_S,
        )
        assert other.take(100, 1 << 20) == []
    server.script = None
    relay.stop(0)


def test_two_relays_share_the_work_of_several_lanes(store: Store) -> None:
    """Whoever delivers what: everything arrives, and what arrives first of a stream arrives in order."""
    sink = FakeSink()
    relays = [relay_over(store, sink, max_records=10, poll_s=0.02, linger_s=0.001) for _ in range(2)]
    for relay in relays:
        relay.start()
    lanes = [store.lane() for _ in range(4)]
    writer = store.checkpoints(lanes[0])
    threads = [threading.Thread(target=commit, args=(store, lane, 150)) for lane in lanes]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert writer.write() is not None
    for thread in threads:
        thread.join()
    assert writer.write() is not None
    assert [relay.stop(PATIENCE_S) for relay in relays] == [True, True]
    assert set(sink.kept) == set(committed(store))
    numbers = defaultdict(list)
    for each in dict.fromkeys(sink.kept):
        numbers[each.stream_id].append(each.number)
    assert all(found == sorted(found) for found in numbers.values())


def test_the_archive_verifies_after_every_step(store: Store, tmp_path: Path) -> None:
    """At any moment the archive holds nothing that a checkpoint names before it holds the record itself."""
    archive = tmp_path / "archive"
    lanes = [store.lane() for _ in range(3)]
    writers = [store.checkpoints(lane) for lane in lanes]
    for turn in range(6):
        commit(store, lanes[turn % 3], 4)
        assert writers[turn % 3].write() is not None
        writers[turn % 3].release()
    relay = relay_over(store, ArchiveSink(archive / "audit.jsonl", store.clock, max_bytes=20_000), max_records=5)
    steps = 0
    while relay.once():
        steps += 1
        report = verify(read_copy([archive]), public_keys=[KEY.public_key()])
        assert not [finding for finding in report.findings if finding.code != "record_unanchored"], steps
    assert steps > 6
    report = verify(read_copy([archive]), public_keys=[KEY.public_key()])
    assert report.verdict == "intact"
    assert report.checkpoints == 6
    assert len(list(archive.iterdir())) > 1


def test_an_outage_leaves_the_leases_in_good_hands(store: Store) -> None:
    """Two relays in turn fail and let go, and the first that reaches the sink delivers."""
    is_away = threading.Event()
    is_away.set()
    sink = FakeSink(lambda _: Unreachable("ConnectError", "refused") if is_away.is_set() else Accepted())
    relays = [relay_over(store, sink, poll_s=0.02) for _ in range(2)]
    commit(store, store.lane(), 5)
    for relay in relays:
        relay.start()
    poll_until(lambda: len(sink.requests) > 8, "some attempts", PATIENCE_S)
    is_away.clear()
    poll_until(lambda: store.reads.outbox().depth == 0, "the records to be delivered", PATIENCE_S)
    assert [relay.stop(PATIENCE_S) for relay in relays] == [True, True]
    assert sink.kept == committed(store)
