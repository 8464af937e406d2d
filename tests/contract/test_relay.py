"""What the relay promises over a real database and a real OTLP server: everything arrives, unchanged and in order."""

import gzip
import logging
from email.utils import formatdate

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from telemetry.delivery import open_sink
from telemetry.delivery.answers import Sink
from telemetry.delivery.settings import sink_settings
from telemetry.instruments import Instruments
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.deliveries import (
    commit,
    committed,
    drain,
    got,
    records_in,
    refusing,
    relay_over,
    sink_to,
    wall_clock,
)
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.outages import cursors_locked

pytestmark = pytest.mark.stores(*BOTH)

REFUSALS = [
    Answer(status=301, headers={"Location": "/v1/elsewhere"}),
    Answer(status=401),
    Answer(status=403),
    Answer(status=404),
    Answer(status=429),
    Answer(status=500),
    Answer(status=502),
    Answer(status=503),
    Answer(status=201),
    Answer(status=202),
    Answer(status=206),
    Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>Welcome!</html>", stored=False),
    Answer(status=200, body=b"\xff\xff\xff", stored=False),
    Answer(reset=True),
    Answer(reset=True, stored=True),
]
"""Answers that say nothing about a record."""


def test_everything_arrives_unchanged_and_in_order(store: Store, server: OtlpSink, sink: Sink) -> None:
    """What the sink decodes are the bytes that were committed, in the order of each stream, each exactly once."""
    for _ in range(3):
        commit(store, store.lane(), 30)
    drain(relay_over(store, sink, max_records=20))
    assert sorted(got(server)) == committed(store)
    for stream_id in {each.stream_id for each in got(server)}:
        numbers = [each.number for each in got(server) if each.stream_id == stream_id]
        assert numbers == list(range(1, 32))
    assert {each.resource["service.name"] for each in server.log_records()} == {"auditrace"}
    assert store.reads.outbox().depth == 0


def test_nothing_is_sent_when_there_is_nothing(store: Store, server: OtlpSink, sink: Sink) -> None:
    """An empty outbox makes no request."""
    drain(relay_over(store, sink))
    assert server.request_count == 0


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize("answer", REFUSALS, ids=lambda answer: f"{answer.status}-{answer.reset}-{answer.stored}")
def test_any_other_answer_is_an_outage(store: Store, server: OtlpSink, http: Sink, answer: Answer) -> None:
    """Records are held, none is parked, and all of them arrive once the sink takes them again."""
    commit(store, store.lane(), 7)
    server.script = lambda _: answer
    relay = relay_over(store, http)
    for _ in range(3):
        assert not relay.once()
    assert store.reads.outbox().depth == 8
    assert relay.state().failing_since_ns is not None
    server.script = None
    drain(relay)
    assert set(got(server)) == set(committed(store))
    assert store.reads.outbox().parked == 0
    assert relay.state().text == ""


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_any_other_status_is_an_outage_over_grpc(store: Store, server: OtlpSink, status: int) -> None:
    """Over gRPC as over HTTP."""
    commit(store, store.lane(), 7)
    server.script = lambda _: Answer(status=status)
    relay = relay_over(store, sink_to(server, "grpc"))
    for _ in range(3):
        assert not relay.once()
    server.script = None
    drain(relay)
    assert set(got(server)) == set(committed(store))
    assert store.reads.outbox().parked == 0


def test_a_sink_that_is_not_there_is_an_outage(store: Store, server: OtlpSink, sink: Sink) -> None:
    """A refused connection holds the records; they arrive when somebody listens again."""
    commit(store, store.lane(), 7)
    server.stop()
    relay = relay_over(store, sink)
    assert not relay.once()
    assert store.reads.outbox().depth == 8
    server.start()
    drain(relay)
    assert set(got(server)) == set(committed(store))


def test_a_sink_that_says_nothing_is_given_up_and_asked_again(store: Store, server: OtlpSink) -> None:
    """A request without an answer ends by its timeout; what may have arrived is sent again."""
    commit(store, store.lane(), 7)
    server.script = lambda _: Answer(hang=True, stored=True)
    for protocol in ("http", "grpc"):
        outbox = store.outbox()
        relay = relay_over(store, sink_to(server, protocol, OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="0.2"), outbox)
        assert not relay.once()
        assert "no answer" in relay.state().text or "DEADLINE_EXCEEDED" in relay.state().text
        outbox.release()
    assert store.reads.outbox().depth == 8
    server.script = None
    drain(relay_over(store, sink_to(server, "http")))
    assert set(got(server)) == set(committed(store))


@pytest.mark.stores(SQLITE)
def test_a_warning_is_a_success(store: Store, server: OtlpSink, http: Sink) -> None:
    """A partial success that rejects nothing only adds words, and the records count as delivered."""
    commit(store, store.lane(), 3)
    server.script = lambda _: Answer(body=b"\x0a\x0d\x12\x0bslow\nplease")
    drain(relay_over(store, http))
    assert store.reads.outbox().depth == 0


@pytest.mark.stores(SQLITE)
def test_an_empty_answer_is_a_success(store: Store, server: OtlpSink, http: Sink) -> None:
    """A 200 or 204 without a body has acknowledged, whatever type it names; a JSON answer is read as JSON."""
    lane = store.lane()
    answers = [
        Answer(status=204, body=b"", stored=True),
        Answer(headers={"Content-Type": "application/json"}, body=b'{"partialSuccess":{"rejectedLogRecords":"0"}}'),
        Answer(headers={"Content-Type": "application/json"}, body=b"{}"),
        *(
            Answer(headers={"Content-Type": content_type, "Content-Encoding": encoding}, body=body)
            for content_type in ("application/json", "application/x-protobuf", "text/html", "")
            for encoding, body in (("identity", b""), ("gzip", b""), ("gzip", gzip.compress(b"")))
        ),
    ]
    for answer in answers:
        commit(store, lane, 3)
        server.script = lambda _, answer=answer: answer
        drain(relay_over(store, http))
    assert got(server) == committed(store)


def test_after_a_failure_a_single_record_is_tried(store: Store, server: OtlpSink, http: Sink) -> None:
    """A sink that stores before it refuses, as a collector with a full queue does, gets few copies; then all flows."""
    commit(store, store.lane(), 63)
    sizes: list[int] = []

    def script(request: Request) -> Answer:
        sizes.append(len(records_in(request)))
        return Answer(status=503) if len(sizes) <= 3 else Answer()

    server.script = script
    drain(relay_over(store, http))
    assert sizes == [64, 1, 1, 1, 2, 4, 8, 16, 32, 1]


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize(
    ("retry_after", "shortest_s", "longest_s"),
    [("7", 7, 7), ("3600", 10, 10), ("0", 0.05, 0.1), ("-1", 0.05, 0.1), ("soon", 0.05, 0.1), (None, 0.05, 0.1)],
)
def test_retry_after_is_honoured(
    store: Store, server: OtlpSink, http: Sink, retry_after: str | None, shortest_s: float, longest_s: float
) -> None:
    """The sink is left alone for as long as it asks, and never for more than ten seconds; nonsense asks for nothing."""
    commit(store, store.lane())
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    server.script = lambda _: Answer(status=503, headers=headers)
    relay = relay_over(store, http)
    relay.once()
    assert shortest_s <= relay.state().pause_s <= longest_s


@pytest.mark.stores(SQLITE)
def test_retry_after_may_be_a_date(store: Store, server: OtlpSink, http: Sink) -> None:
    """As RFC 9110 has it; a date that is past asks for nothing."""
    commit(store, store.lane())
    date = [formatdate(wall_clock() / 1e9 + 3600, usegmt=True)]
    server.script = lambda _: Answer(status=429, headers={"Retry-After": date[0]})
    relay = relay_over(store, http)
    relay.once()
    assert relay.state().pause_s == 10.0
    date[0] = formatdate(0, usegmt=True)
    relay.once()
    assert relay.state().pause_s < 1.0


def test_an_outage_is_logged_when_it_changes(
    store: Store, server: OtlpSink, http: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """Once when it begins, once when its reason changes, once when it ends; not with every attempt."""
    caplog.set_level(logging.INFO, logger="service.relay")
    commit(store, store.lane(), 3)
    relay = relay_over(store, http)
    for status in (503, 401):
        server.script = lambda _, status=status: Answer(status=status)
        for _ in range(5):
            relay.once()
    server.script = None
    drain(relay)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("service.relay")]
    assert len(messages) == 3
    assert "503" in messages[0]
    assert "401" in messages[1]
    assert "delivered again" in messages[2]


def test_the_state_says_since_when_and_why(store: Store, server: OtlpSink, http: Sink) -> None:
    """Readiness names the time of the first failure, the sink and its latest answer."""
    commit(store, store.lane())
    relay = relay_over(store, http)
    server.script = lambda _: Answer(status=503)
    relay.once()
    since = relay.state().failing_since_ns
    store.clock.advance(60)
    server.script = lambda _: Answer(status=401)
    relay.once()
    assert relay.state().failing_since_ns == since
    assert relay.state().text == f"records are held since 2026-01-02T03:04:05Z, {http.address}: 401 Unauthorized"


def test_a_crash_between_answer_and_cursor_makes_identical_duplicates(
    store: Store, server: OtlpSink, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that dies after the acknowledgement leaves everything to be sent again: the same bytes, nothing else."""
    commit(store, store.lane(), 9)
    dying = store.outbox()

    def die(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dying, "delivered", die)
    with pytest.raises(KeyboardInterrupt):
        relay_over(store, sink, dying).once()
    store.kill_relay(dying)
    drain(relay_over(store, sink))
    everything = committed(store)
    assert got(server) == [*everything, *everything]


def test_a_database_that_is_away_costs_no_second_copy(store: Store, server: OtlpSink, http: Sink) -> None:
    """What was acknowledged while the cursor could not be moved is not sent again by the relay that knows it."""
    commit(store, store.lane(), 5)
    outbox = store.outbox()
    relay = relay_over(store, http, outbox)
    outbox.take(100, 1 << 20)
    with cursors_locked(store, outbox):
        for _ in range(3):
            assert not relay.once()
        assert "busy" in relay.state().text
        assert store.reads.outbox().depth == 6
    drain(relay)
    assert got(server) == committed(store)


def test_a_relay_that_cannot_reach_the_sink_lets_go(store: Store, server: OtlpSink, http: Sink) -> None:
    """Leases are given back after a few failures, so that a relay elsewhere that can reach it delivers."""
    commit(store, store.lane(), 5)
    nowhere = sink_settings({}, "http://127.0.0.1:1/v1/logs")
    assert nowhere is not None
    cut_off = relay_over(store, open_sink(nowhere, wall_clock))
    other = relay_over(store, http)
    cut_off.once()
    assert not other.once()
    for _ in range(5):
        cut_off.once()
    assert other.once()
    assert got(server) == committed(store)
    assert not cut_off.once()
    assert cut_off.state().text == ""


def test_delivery_is_measured(store: Store, server: OtlpSink, http: Sink) -> None:
    """Each attempt, each delivered and each parked record is counted."""
    counted: list[tuple[str, object]] = []

    class Counting(Instruments):
        def records_delivered(self, count: int) -> None:
            counted.append(("delivered", count))

        def record_parked(self) -> None:
            counted.append(("parked", 1))

        def delivery_ended(self, duration_s: float, error_type: str | None) -> None:
            assert duration_s >= 0
            counted.append(("attempt", error_type))

    lane = store.lane()
    commit(store, lane, 1)
    relay = relay_over(store, http, instruments=Counting(NoOpMeterProvider().get_meter("test")))
    drain(relay)
    commit(store, lane, 1)
    server.script = refusing(lambda record: record.number == 3, Answer(status=400))
    drain(relay)
    server.script = lambda _: Answer(status=503)
    commit(store, lane, 1)
    relay.once()
    assert counted == [
        ("attempt", None),
        ("delivered", 2),
        ("attempt", "400"),
        ("attempt", None),
        ("attempt", "400"),
        ("parked", 1),
        ("attempt", "503"),
    ]
