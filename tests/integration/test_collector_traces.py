"""A trace that an audit record points to is kept when others are sampled away; rates are counted before sampling."""

import itertools
from collections.abc import Iterable, Iterator, Mapping

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from telemetry.audit.canonical import Value
from telemetry.names import AUDIT_RECORD_ID, AUDIT_RECORDED
from tests.support.archive import archived
from tests.support.collector import Collector
from tests.support.ids import record_ids
from tests.support.otlp_client import post
from tests.support.otlp_messages import ReceivedLog, ReceivedSpan, plain_attributes
from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import log_request, record_of, span, trace_request

HINTS: list[Mapping[str, Value]] = [
    {AUDIT_RECORD_ID: "019b76da-a800-7001-8000-000000000001"},
    {AUDIT_RECORD_ID: ["019b76da-a800-7001-8000-000000000001", "019b76da-a800-7001-8000-000000000002"]},
    {AUDIT_RECORDED: True},
]

SAMPLED = 1
"""The bit of a record's flags that says that its span was recorded."""


def unresolved(records: Iterable[ReceivedLog], spans: Iterable[ReceivedSpan]) -> list[str]:
    """Returns the ids of the records whose span is missing or does not carry the record's id; empty when all resolve.

    Records whose flags say that their span was not sampled promise nothing, and are not asked about.
    """
    ids_of = {(each.span.trace_id, each.span.span_id): _record_ids(each) for each in spans}
    missing: list[str] = []
    for _, record in records:
        record_id = str(plain_attributes(record.attributes)[AUDIT_RECORD_ID])
        if record.flags & SAMPLED and record_id not in ids_of.get((record.trace_id, record.span_id), ()):
            missing.append(record_id)
    return missing


def _record_ids(received: ReceivedSpan) -> list[str]:
    value = plain_attributes(received.span.attributes).get(AUDIT_RECORD_ID, [])
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


@pytest.fixture(scope="module")
def tempo() -> Iterator[OtlpSink]:
    """One trace backend, and the metric backend."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def jaeger() -> Iterator[OtlpSink]:
    """The other trace backend."""
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, tempo: OtlpSink, jaeger: OtlpSink) -> Iterator[Collector]:
    """The shipped configuration with a baseline of 0 % and the shortest decision that the sampler's clock allows."""
    settings = {
        "TRACE_SAMPLING_PERCENTAGE": "0",
        "TRACE_DECISION_WAIT": "1s",
        "TRACES_ENDPOINT": tempo.grpc_endpoint,
        "JAEGER_ENDPOINT": jaeger.grpc_endpoint,
        "METRICS_ENDPOINT": tempo.http_endpoint,
    }
    with Collector(tmp_path_factory.mktemp("collector"), settings) as running:
        yield running


def _wait_for_trace(sink: OtlpSink, spans: list[Span]) -> None:
    poll_until(lambda: _arrived(sink, spans) == _ids(spans), f"the whole trace of {spans[0].name}")


def _decide_all(collector: Collector, *sinks: OtlpSink) -> None:
    """Returns when every trace sent so far is decided: decisions are made in order of arrival, and a last one came."""
    last = span("last", attributes={AUDIT_RECORDED: True})
    assert post(collector.traces_endpoint, trace_request(last)).status == 200
    for sink in sinks:
        _wait_for_trace(sink, [last])


def _three_spans(attributes: Mapping[str, Value] | None = None) -> list[Span]:
    root = span("POST /v1/jobs", kind=Span.SPAN_KIND_SERVER)
    child = span("commit", parent=root, attributes=attributes)
    return [root, child, span("job enqueue", parent=child, kind=Span.SPAN_KIND_PRODUCER)]


def _ids(spans: list[Span]) -> set[bytes]:
    return {each.span_id for each in spans}


def _arrived(sink: OtlpSink, spans: list[Span]) -> set[bytes]:
    return _ids([each.span for each in sink.trace(spans[0].trace_id.hex())])


def test_at_zero_percent_audited_traces_arrive_whole_at_both_backends_and_the_others_not(
    collector: Collector, tempo: OtlpSink, jaeger: OtlpSink
) -> None:
    """A record id (one or several) or the mark on any span keeps every span of the trace; the others leave nothing."""
    audited = [_three_spans(hint) for hint in HINTS]
    others = [_three_spans(), _three_spans({AUDIT_RECORDED: False}), _three_spans({"audit.action": "CREATE"})]
    for spans in [*others, *audited]:
        # A request each, so that a trace is put together from what comes separately.
        for each in spans:
            assert post(collector.traces_endpoint, trace_request(each)).status == 200
    _decide_all(collector, tempo, jaeger)
    for sink in (tempo, jaeger):
        for spans in audited:
            _wait_for_trace(sink, spans)
        assert [_arrived(sink, spans) for spans in others] == [set()] * len(others)


def test_audit_records_in_the_archive_resolve_to_spans_that_carry_their_ids(
    collector: Collector, tempo: OtlpSink, jaeger: OtlpSink
) -> None:
    """With nothing else kept, each record's span is at both backends and names the record, so both ways lead on."""
    one, two, unsampled = itertools.islice(record_ids(7), 3)
    spans = [span("one", attributes={AUDIT_RECORD_ID: one}), span("two", attributes={AUDIT_RECORD_ID: [one, two]})]
    records = [record_of(spans[0], one), record_of(spans[1], two), record_of(span("dropped"), unsampled, flags=0)]
    assert post(collector.traces_endpoint, trace_request(*spans)).status == 200
    assert post(collector.audit_endpoint, log_request(*records)).status == 200
    kept = archived(collector.archive_dir)
    assert len(kept) == len(records)
    assert unresolved(kept, []) == [one, two]
    poll_until(lambda: unresolved(kept, tempo.spans()) == [], "the spans of all records")
    poll_until(lambda: unresolved(kept, jaeger.spans()) == [], "the spans of all records")


def test_errors_and_slow_traces_are_kept_at_zero_percent(collector: Collector, tempo: OtlpSink) -> None:
    """A trace with a failed span, or one that took over a second, is kept although nobody audited it."""
    failed, slow = [span("fails", is_error=True)], [span("slow", duration_ms=1500)]
    for spans in (failed, slow):
        assert post(collector.traces_endpoint, trace_request(*spans)).status == 200
    for spans in (failed, slow):
        _wait_for_trace(tempo, spans)


def test_a_span_that_comes_after_the_decision_follows_it(collector: Collector, tempo: OtlpSink) -> None:
    """The late span of an audited trace arrives; that of a trace that was dropped does not."""
    audited, other = span("audited", attributes=HINTS[0]), span("other")
    assert post(collector.traces_endpoint, trace_request(audited, other)).status == 200
    _decide_all(collector, tempo)
    assert _arrived(tempo, [audited])
    late = [span("late", parent=other), span("late", parent=audited)]
    for each in late:
        assert post(collector.traces_endpoint, trace_request(each)).status == 200
    poll_until(lambda: late[1].span_id in _arrived(tempo, [audited]), "the late span")
    assert _arrived(tempo, [other]) == set()


def _sums(sink: OtlpSink, name: str) -> list[tuple[dict[str, object], float]]:
    """Returns attributes and value of every point of a sum, as exported."""
    return [
        (plain_attributes(point.attributes), point.as_int or point.as_double)
        for each in sink.metrics()
        if each.metric.name == name
        for point in each.metric.sum.data_points
    ]


def test_span_metrics_and_the_service_graph_count_what_sampling_drops(collector: Collector, tempo: OtlpSink) -> None:
    """Spans of a dropped trace are in the rates; client-server and queue-worker pairs are edges of the graph."""
    call = span("call", kind=Span.SPAN_KIND_CLIENT)
    served = span("serve", parent=call, kind=Span.SPAN_KIND_SERVER)
    queued = span("job enqueue", parent=served, kind=Span.SPAN_KIND_PRODUCER)
    run = span("job run", parent=queued, kind=Span.SPAN_KIND_CONSUMER)
    for service, spans in (("web", [call]), ("api", [served, queued]), ("worker", [run])):
        assert post(collector.traces_endpoint, trace_request(*spans, service=service)).status == 200

    def counted(span_name: str) -> float:
        points = _sums(tempo, "traces.span.metrics.calls")
        return max((value for attributes, value in points if attributes["span.name"] == span_name), default=0)

    def has_edge(client: str, server: str) -> bool:
        return any(
            (attributes["client"], attributes["server"]) == (client, server) and value >= 1
            for attributes, value in _sums(tempo, "traces_service_graph_request_total")
        )

    poll_until(lambda: [counted(name) for name in ("call", "serve", "job run")] == [1, 1, 1], "the rates")
    poll_until(lambda: has_edge("web", "api"), "the edge from client to server")
    poll_until(lambda: has_edge("api", "worker"), "the edge from queue to worker")
    _decide_all(collector, tempo)
    assert _arrived(tempo, [call]) == set()


def test_durations_are_histograms_in_seconds(collector: Collector, tempo: OtlpSink) -> None:
    """The duration of spans is exported in seconds, as the service's own durations are."""
    assert post(collector.traces_endpoint, trace_request(span("timed"))).status == 200

    def units() -> set[str]:
        return {each.metric.unit for each in tempo.metrics() if each.metric.name == "traces.span.metrics.duration"}

    poll_until(lambda: bool(units()), "the histogram")
    assert units() == {"s"}
