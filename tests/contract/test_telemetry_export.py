"""What `set_up` promises about exporting, against a real OTLP server: over HTTP and gRPC, and when it is away."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from telemetry import names
from telemetry.setup import SHUTDOWN_S, Telemetry, set_up
from tests.support.otlp_messages import plain_attributes
from tests.support.otlp_sink import Answer, OtlpSink, Request

Start = Callable[[Mapping[str, str]], Telemetry]

LOG = logging.getLogger("service.test")


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """An OTLP server of the test's own."""
    with OtlpSink() as running:
        yield running


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Set up the telemetry of a daemon that has these variables."""
    made: list[Telemetry] = []

    def set_up_with(environment: Mapping[str, str]) -> Telemetry:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made.append(set_up(environment, instance_id="i-1", version="1", certificate="sha256:ab", is_daemon=True))
        return made[-1]

    yield set_up_with
    for telemetry in made:
        telemetry.shutdown()
        # An exporter that was given up speaks on, and must not do so on the standard error of the tests that follow.
        telemetry._output.close()


def variables(sink: OtlpSink, protocol: str) -> dict[str, str]:
    """Return the standard variables that name this server."""
    endpoint = sink.http_endpoint if protocol != "grpc" else f"http://{sink.grpc_endpoint}"
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_everything_is_flushed_at_the_end(sink: OtlpSink, start: Start, protocol: str) -> None:
    """Spans, metrics and log lines of the last moment arrive, with the process's resource, and the line in its span."""
    telemetry = start(variables(sink, protocol))
    telemetry.instruments.record_committed("success")
    with telemetry.tracer.start_as_current_span("work"):
        LOG.info("the last words")
    telemetry.shutdown()
    (span,) = sink.spans()
    assert span.span.name == "work"
    assert span.resource[names.SERVICE_INSTANCE_ID] == "i-1"
    # The key that signs checkpoints is the audit trail's, not ordinary telemetry's.
    assert names.AUDIT_INTEGRITY_CERTIFICATE not in span.resource
    (line,) = [each.record for each in sink.log_records() if each.record.body.string_value == "the last words"]
    assert (line.trace_id, line.span_id) == (span.span.trace_id, span.span.span_id)
    assert plain_attributes(line.attributes)[names.CODE_LINE_NUMBER]
    committed = [each for each in sink.metrics() if each.metric.name == names.METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED]
    assert {point.as_int for point in committed[-1].metric.sum.data_points} == {0, 1}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_signal_carries_the_headers(sink: OtlpSink, start: Start, protocol: str) -> None:
    """Traces, metrics and logs, with those of the signal before the general ones, binary ones of gRPC included."""
    seen: dict[str, Mapping[str, str]] = {}

    def script(request: Request) -> Answer:
        seen[type(request.message).__name__] = request.headers
        return Answer()

    sink.script = script
    headers = {
        "OTEL_EXPORTER_OTLP_HEADERS": "X-Tenant=a%20b,tenant-bin=AQID",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "X-Tenant=metrics,tenant-bin=BAUG",
    }
    telemetry = start({**variables(sink, protocol), **headers})
    telemetry.tracer.start_span("work").end()
    LOG.warning("said")
    telemetry.shutdown()
    carried = {kind: (each["x-tenant"], each["tenant-bin"]) for kind, each in seen.items()}
    assert carried == {
        "ExportTraceServiceRequest": ("a b", "AQID"),
        "ExportLogsServiceRequest": ("a b", "AQID"),
        "ExportMetricsServiceRequest": ("metrics", "BAUG"),
    }


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_signal_is_compressed_as_asked(sink: OtlpSink, start: Start, protocol: str, compression: str) -> None:
    """Over gRPC too, whose exporters know only `gzip` by themselves and end the start for anything else."""
    telemetry = start({**variables(sink, protocol), "OTEL_EXPORTER_OTLP_COMPRESSION": compression})
    telemetry.instruments.record_committed("success")
    telemetry.tracer.start_span("work").end()
    LOG.warning("said")
    telemetry.shutdown()
    assert len(sink.spans()) == len(sink.log_records()) == 1
    assert sink.metrics()


def test_only_what_is_asked_for_is_sent(sink: OtlpSink, start: Start) -> None:
    """Signals that are switched off stay here, although there is an endpoint."""
    off = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    telemetry = start({**variables(sink, "http/protobuf"), **off})
    with telemetry.tracer.start_as_current_span("work"):
        LOG.warning("said")
    telemetry.shutdown()
    assert sink.spans() == []
    assert sink.metrics() == []
    assert len(sink.log_records()) == 1


def test_a_collector_that_is_away_costs_neither_the_log_nor_the_end(
    sink: OtlpSink, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nobody listening, standard error has each complaint once between our own lines, and shutting down ends."""
    environment = variables(sink, "http/protobuf")
    sink.stop()
    telemetry = start({**environment, "OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BLRP_SCHEDULE_DELAY": "10"})
    done = threading.Event()

    def work() -> None:
        for _ in range(200):
            telemetry.tracer.start_span("work").end()
        LOG.warning("said")
        telemetry.shutdown()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(SHUTDOWN_S * 6)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    complaints = [line for line in lines if line["logger"].startswith("opentelemetry")]
    assert complaints
    # At most a handful of different messages for each of three signals.
    assert len(complaints) <= 9
    assert [line["message"] for line in lines if line["logger"] == "service.test"] == ["said"]
    sink.start()
