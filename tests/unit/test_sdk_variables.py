"""What the SDK would take without a word, half, or with a traceback is refused; what it takes right is let through."""

import pytest

from telemetry.sdk_variables import sdk_problems


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_SDK_DISABLED", "True", "OTEL_LOGS_EXPORTER=none"),
        ("OTEL_CONFIG_FILE", "otel.yaml", "use the OTEL_* variables"),
        ("OTEL_EXPERIMENTAL_CONFIG_FILE", "otel.yaml", "use the OTEL_* variables"),
        ("OTEL_PROPAGATORS", "b3", "only W3C Trace Context"),
        ("OTEL_PROPAGATORS", "none", "only W3C Trace Context"),
        ("OTEL_PROPAGATORS", "tracecontext,b3multi", "only W3C Trace Context"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "gcp", "use OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_PYTHON_EXPORTER_OTLP_GRPC_LOGS_CREDENTIAL_PROVIDER", "gcp", "use OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "x", "not supported"),
        ("OTEL_PYTHON_METER_PROVIDER", "mine", "default_meter_provider, sdk_meter_provider"),
        ("OTEL_PYTHON_CONTEXT", "mine", "contextvars_context"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "host,gcp", "'gcp' is none of"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "always_on, always_off, trace_based"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "later", "cumulative, delta, lowmemory"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "x", "base2_exponential_bucket_histogram"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1.5", "positive whole number"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is 512, and must not be more than"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "4096", "OTEL_BLRP_MAX_QUEUE_SIZE, which is 2048"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5", "64 or more, or the ids of audit records on spans are dropped"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "many", "64 or more"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "32", "are cut"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1", "is not a whole number"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "x", "is not a whole number"),
    ],
)
def test_a_variable_that_would_not_be_followed_is_refused(variable: str, value: str, said: str) -> None:
    """In one line that names it and says what to do."""
    (problem,) = sdk_problems({variable: value})
    assert variable in problem
    assert said in problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_CONFIG_FILE", " "),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_PROPAGATORS", "tracecontext"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process, host"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "*"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "64"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "0"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider"),
        ("OTEL_LOG_LEVEL", "debug"),
        ("OTEL_SEMCONV_STABILITY_OPT_IN", "http"),
    ],
)
def test_what_is_right_or_of_no_concern_passes(variable: str, value: str) -> None:
    """Nothing is refused that works, or that is there for other programs."""
    assert sdk_problems({variable: value}) == []
