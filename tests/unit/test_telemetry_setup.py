"""One call sets up telemetry as the environment asks for it; ending it is bounded, quiet and final."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest
from opentelemetry.exporter.prometheus import _CustomCollector
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext, get_tracer_provider
from prometheus_client.parser import text_string_to_metric_families

from telemetry import names
from telemetry.errors import TelemetrySettingsError
from telemetry.propagation import remote_context
from telemetry.setup import Telemetry, set_up

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

SetUp = Callable[[Mapping[str, str]], Telemetry]


@pytest.fixture
def set_up_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """Set up telemetry in a process that has these variables."""
    made: list[Telemetry] = []

    def start(environment: Mapping[str, str]) -> Telemetry:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        telemetry = set_up(
            environment, instance_id="instance-1", version="1.2.3", certificate="sha256:ab", is_daemon=False
        )
        made.append(telemetry)
        return telemetry

    yield start
    for telemetry in made:
        telemetry.shutdown()


def span_after(telemetry: Telemetry, traceparent: str) -> SpanContext:
    """Return the context of a span that continues a caller's."""
    span = telemetry.tracer.start_span("work", context=remote_context(traceparent, None))
    span.end()
    return span.get_span_context()


def test_the_default_is_silent(set_up_with: SetUp) -> None:
    """Without any variable nothing is exported, no thread is started, and nothing is made global."""
    before = set(threading.enumerate())
    telemetry = set_up_with({})
    telemetry.tracer.start_span("work").end()
    assert set(threading.enumerate()) <= before
    assert not isinstance(get_tracer_provider(), TracerProvider)


def test_the_resource_describes_the_process(set_up_with: SetUp) -> None:
    """Audit records name service, version, instance, algorithm and key; the SDK's own attributes are there too."""
    attributes = set_up_with({}).audit_resource.attributes
    assert (
        attributes.items()
        >= {
            names.SERVICE_NAME: "auditrace",
            names.SERVICE_VERSION: "1.2.3",
            names.SERVICE_INSTANCE_ID: "instance-1",
            names.AUDIT_INTEGRITY_ALGORITHM: "EdDSA",
            names.AUDIT_INTEGRITY_CERTIFICATE: "sha256:ab",
        }.items()
    )
    assert "telemetry.sdk.version" in attributes


def test_the_operator_names_the_service_but_not_the_key(set_up_with: SetUp) -> None:
    """OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win over the defaults, and never over what proves integrity."""
    telemetry = set_up_with(
        {
            "OTEL_SERVICE_NAME": "payroll-jobs",
            "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine,deployment.environment.name=production,"
            "audit.integrity.certificate=sha256:forged",
        }
    )
    assert (
        telemetry.audit_resource.attributes.items()
        >= {
            names.SERVICE_NAME: "payroll-jobs",
            names.SERVICE_INSTANCE_ID: "mine",
            names.DEPLOYMENT_ENVIRONMENT_NAME: "production",
            names.AUDIT_INTEGRITY_CERTIFICATE: "sha256:ab",
        }.items()
    )


def test_a_caller_cannot_erase_its_trace(set_up_with: SetUp) -> None:
    """A traceparent that says "not sampled" still gives a sampled span, in the caller's trace."""
    context = span_after(set_up_with({}), CALLER)
    assert f"{context.trace_id:032x}" == CALLER[3:35]
    assert context.trace_flags.sampled


@pytest.mark.parametrize(
    ("sampler", "of_an_unsampled_caller", "of_nobody"),
    [
        ("always_on", True, True),
        ("always_off", False, False),
        ("traceidratio", True, True),
        ("parentbased_always_on", False, True),
        ("parentbased_always_off", False, False),
        ("parentbased_traceidratio", False, True),
    ],
)
def test_the_operator_s_sampler_wins(
    set_up_with: SetUp, sampler: str, of_an_unsampled_caller: bool, of_nobody: bool
) -> None:
    """OTEL_TRACES_SAMPLER decides; a span that is not sampled still has ids, so that its record can say so."""
    telemetry = set_up_with({"OTEL_TRACES_SAMPLER": sampler})
    assert span_after(telemetry, CALLER).trace_flags.sampled is of_an_unsampled_caller
    alone = span_after(telemetry, "")
    assert alone.is_valid
    assert alone.trace_flags.sampled is of_nobody


def test_a_ratio_of_nothing_samples_nothing(set_up_with: SetUp) -> None:
    """OTEL_TRACES_SAMPLER_ARG is honoured."""
    telemetry = set_up_with({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"})
    assert not span_after(telemetry, "").trace_flags.sampled


def test_metrics_can_always_be_scraped(set_up_with: SetUp) -> None:
    """Prometheus text with the process's resource is there whatever is exported, also with all exporters off."""
    telemetry = set_up_with({"OTEL_METRICS_EXPORTER": "none"})
    telemetry.instruments.record_committed("success")
    telemetry.instruments.request_ended(
        0.02, method="GET", scheme="http", route="/v1/jobs", status=200, error_type=None
    )
    families = {family.name: family for family in text_string_to_metric_families(telemetry.render_metrics().decode())}
    committed = {
        sample.labels["audit_outcome"]: sample.value
        for sample in families["auditrace_audit_records_committed"].samples
        if sample.name.endswith("_total")
    }
    assert committed == {"success": 1.0, "failure": 0.0, "unknown": 0.0}
    assert families["http_server_request_duration_seconds"].type == "histogram"
    assert families["target_info"].samples[0].labels["service_name"] == "auditrace"


def test_scrapes_do_not_say_where_the_process_runs(set_up_with: SetUp) -> None:
    """Whoever may scrape learns service, version, instance and environment; no hosts, no paths."""
    attributes = "host.name=db-7.inside.example,process.command=/srv/inside/auditrace,deployment.environment.name=test"
    text = set_up_with({"OTEL_RESOURCE_ATTRIBUTES": attributes}).render_metrics().decode()
    assert "inside" not in text
    (sample,) = next(family for family in text_string_to_metric_families(text) if family.name == "target_info").samples
    assert {"service_name", "service_version", "service_instance_id"} <= set(sample.labels)
    assert sample.labels["deployment_environment_name"] == "test"


def test_scrapes_at_the_same_time_do_not_mix(set_up_with: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Prometheus servers that ask at once both get everything, once."""
    telemetry = set_up_with({})
    collector, _target = telemetry._registry._collector_to_names
    assert isinstance(collector, _CustomCollector)
    add = collector.add_metrics_data

    def add_slowly(collected: MetricsData) -> None:
        add(collected)
        # Long enough for every other scrape to get this far, if it could.
        threading.Event().wait(0.01)

    monkeypatch.setattr(collector, "add_metrics_data", add_slowly)
    texts: list[bytes] = []
    scrapers = [threading.Thread(target=lambda: texts.append(telemetry.render_metrics())) for _ in range(8)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_a_wrong_variable_sets_up_nothing(set_up_with: SetUp) -> None:
    """A mistake is an error before any handler or thread exists."""
    before = (threading.active_count(), list(logging.getLogger().handlers))
    with pytest.raises(TelemetrySettingsError, match="OTEL_SDK_DISABLED"):
        set_up_with({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert (threading.active_count(), list(logging.getLogger().handlers)) == before


def test_settings_that_do_not_fit_together_are_refused(set_up_with: SetUp) -> None:
    """What only the SDK can find wrong is an error of the settings too."""
    with pytest.raises(TelemetrySettingsError, match="OTEL_"):
        set_up_with(
            {
                "OTEL_TRACES_EXPORTER": "console",
                "OTEL_BSP_MAX_QUEUE_SIZE": "10",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "20",
            }
        )


def test_shutting_down_is_quiet_and_final(set_up_with: SetUp) -> None:
    """Shutting down twice is once, logging is given back, and what comes after harms nobody."""
    before = list(logging.getLogger().handlers)
    telemetry = set_up_with({})
    telemetry.shutdown()
    telemetry.shutdown()
    assert list(logging.getLogger().handlers) == before
    telemetry.tracer.start_span("late").end()
    telemetry.instruments.record_committed("success")


class Stuck(SpanProcessor):
    """Never gets rid of what it holds; or breaks instead."""

    def __init__(self, released: threading.Event, *, breaks: bool) -> None:
        self._released = released
        self._breaks = breaks

    def shutdown(self) -> None:
        if self._breaks:
            raise RuntimeError("broken exporter")
        self._released.wait()


@pytest.mark.parametrize("breaks", [False, True])
def test_an_exporter_cannot_hold_or_break_the_end(breaks: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Shutting down returns although an exporter hangs or raises, and says so."""
    released = threading.Event()
    telemetry = set_up({}, instance_id="i", version="1", certificate="sha256:ab", is_daemon=False)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Stuck(released, breaks=breaks))
    telemetry._providers = [provider.shutdown]
    telemetry._shutdown_s = 0.1
    telemetry.shutdown()
    released.set()
    assert any(record.name == "telemetry.setup" for record in caplog.records)
