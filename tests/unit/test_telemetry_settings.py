"""The standard variables are honoured, and a mistake in one is refused with what to do instead of guessed around."""

from pathlib import Path

import pytest

from telemetry import names
from telemetry.errors import TelemetrySettingsError
from telemetry.otel_settings import CONSOLE, OTLP, SAMPLERS, read_otel_settings
from telemetry.otlp_settings import GRPC, HTTP

ENDPOINT = "http://localhost:4318"


def test_nothing_set_means_silence() -> None:
    """Without any variable no signal goes anywhere, and every span is sampled whatever the caller says."""
    settings = read_otel_settings({})
    assert not settings.traces.exporters | settings.metrics.exporters | settings.logs.exporters
    assert settings.sampler == "always_on"
    assert settings.resource == {}


def test_an_empty_variable_is_not_set() -> None:
    """An empty value counts as none, as the specification has it."""
    empty = dict.fromkeys(["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"], "")
    assert read_otel_settings(empty) == read_otel_settings({})


def test_an_endpoint_is_enough() -> None:
    """A general endpoint sends all three signals by OTLP over HTTP."""
    settings = read_otel_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT})
    for signal in (settings.traces, settings.metrics, settings.logs):
        assert signal.exporters == {OTLP}
        assert signal.protocol == HTTP


def test_a_signal_s_own_endpoint_sends_only_that_signal() -> None:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT alone leaves metrics and logs silent."""
    settings = read_otel_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT + "/v1/traces"})
    assert settings.traces.exporters == {OTLP}
    assert not settings.metrics.exporters | settings.logs.exporters


def test_a_named_exporter_wins_over_the_endpoint() -> None:
    """`none` silences a signal that has an endpoint; `otlp` needs none; several may be named."""
    settings = read_otel_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
            "OTEL_TRACES_EXPORTER": "otlp, console",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "console",
        }
    )
    assert settings.traces.exporters == {OTLP, CONSOLE}
    assert settings.metrics.exporters == frozenset()
    assert settings.logs.exporters == {CONSOLE}
    assert read_otel_settings({"OTEL_TRACES_EXPORTER": "otlp"}).traces.exporters == {OTLP}
    # /metrics is always there.
    assert read_otel_settings({"OTEL_METRICS_EXPORTER": "prometheus"}).metrics.exporters == frozenset()


def test_a_signal_s_own_protocol_wins() -> None:
    """The specific protocol is taken before the general one; with gRPC, an endpoint may be a bare host and port."""
    settings = read_otel_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://[::1]:4318/v1/logs",
        }
    )
    assert (settings.traces.protocol, settings.metrics.protocol, settings.logs.protocol) == (GRPC, GRPC, HTTP)


def test_the_resource_is_taken_from_the_variables() -> None:
    """Attributes are decoded, and OTEL_SERVICE_NAME wins over the name among them."""
    settings = read_otel_settings(
        {
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=a, deployment.environment.name=pr%20od ,",
            "OTEL_SERVICE_NAME": "b",
        }
    )
    assert settings.resource == {names.SERVICE_NAME: "b", names.DEPLOYMENT_ENVIRONMENT_NAME: "pr od"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_named_sampler_is_taken(sampler: str) -> None:
    """Each sampler of the specification may be named."""
    settings = read_otel_settings({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.25"})
    assert settings.sampler == sampler
    assert settings.sampler_ratio == (0.25 if "ratio" in sampler else 1.0)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_SDK_DISABLED", "TRUE", "OTEL_TRACES_EXPORTER=none"),
        ("OTEL_TRACES_EXPORTER", "jaeger", "console, none, otlp"),
        ("OTEL_TRACES_EXPORTER", "prometheus", "console, none, otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf, grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http", "http/protobuf, grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:port", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "ftp://localhost", "http://localhost:4318"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_always_on"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment", "key=value"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x", "key=value"),
        ("OTEL_SERVICE_NAME", "a\udcff", "UTF-8"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "positive whole number"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "positive whole number"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "32", "64 or more"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "64 or more"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(variable: str, value: str, said: str) -> None:
    """The error names the variable and what it may be."""
    with pytest.raises(TelemetrySettingsError) as refused:
        read_otel_settings({variable: value})
    assert variable in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("ratio", ["", "1.5", "-0.1", "half", "nan"])
def test_a_ratio_is_a_number_from_0_to_1(ratio: str) -> None:
    """A ratio that is none is refused, except that none at all means every trace, as the specification says."""
    variables = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
    if not ratio:
        assert read_otel_settings(variables).sampler_ratio == 1.0
        return
    with pytest.raises(TelemetrySettingsError, match="OTEL_TRACES_SAMPLER_ARG"):
        read_otel_settings(variables)


@pytest.mark.parametrize(
    ("suffix", "value"),
    [
        ("CERTIFICATE", "/nowhere/ca.pem"),
        ("CLIENT_KEY", "/nowhere/key.pem"),
        ("HEADERS", "Bearer s3cret"),
        ("COMPRESSION", "zstd"),
        ("TIMEOUT", "10s"),
    ],
)
def test_what_exporters_would_stumble_over_is_refused(suffix: str, value: str) -> None:
    """Settings of an exporter are checked before it is used, the specific and the general ones, if there is one."""
    for variable in (f"OTEL_EXPORTER_OTLP_{suffix}", f"OTEL_EXPORTER_OTLP_METRICS_{suffix}"):
        read_otel_settings({variable: value})
        with pytest.raises(TelemetrySettingsError, match=variable) as refused:
            read_otel_settings({variable: value, "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT})
        assert "s3cret" not in str(refused.value)


def test_a_header_that_cannot_be_sent_is_refused_once() -> None:
    """For the protocol of each signal; the same mistake in the general variable is told once, not for each signal."""
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_HEADERS": "grpc-s3cret=1"}
    read_otel_settings(general)
    with pytest.raises(TelemetrySettingsError) as refused:
        read_otel_settings({**general, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert str(refused.value).count("OTEL_EXPORTER_OTLP_HEADERS") == 1
    assert "s3cret" not in str(refused.value)
    with pytest.raises(TelemetrySettingsError, match="OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        read_otel_settings({**general, "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=%0A"})


def test_good_settings_of_exporters_pass(tmp_path: Path) -> None:
    """What is right is not refused."""
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    settings = read_otel_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,tenant=a,",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
            "OTEL_BSP_MAX_QUEUE_SIZE": "4096",
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "64",
            "OTEL_SDK_DISABLED": "false",
        }
    )
    assert settings.traces.exporters == {OTLP}


def test_all_mistakes_are_told_at_once() -> None:
    """An operator repairs everything in one go."""
    with pytest.raises(TelemetrySettingsError) as refused:
        read_otel_settings(
            {
                "OTEL_SDK_DISABLED": "true",
                "OTEL_TRACES_EXPORTER": "zipkin",
                "OTEL_TRACES_SAMPLER": "often",
                "OTEL_RESOURCE_ATTRIBUTES": "x",
            }
        )
    for variable in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_RESOURCE_ATTRIBUTES"):
        assert variable in str(refused.value)


@pytest.mark.parametrize(("more", "is_unread"), [({}, True), ({"OTEL_TRACES_SAMPLER": "x"}, False)])
def test_one_file_of_several_signals_is_one_problem(tmp_path: Path, more: dict[str, str], is_unread: bool) -> None:
    """A file that cannot be read is told from a setting that is wrong, also when three signals name the file."""
    shared = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path)}
    with pytest.raises(TelemetrySettingsError) as refused:
        read_otel_settings({**shared, **more})
    assert len(refused.value.problems) == 1 + len(more)
    assert refused.value.is_unread is is_unread
