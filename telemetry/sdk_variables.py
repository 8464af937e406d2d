"""Refuses values of standard variables that the OpenTelemetry SDK ignores, uses in part, or answers with a traceback.

Source: OpenTelemetry specification, environment variables; https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Final

FEWEST: Final = 64
"""The least limit on number and length of span attributes: the ids of records, jobs and requests must fit."""

_FILES: Final = ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
_INTERVALS: Final = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_EXPORT_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
)
_QUEUES: Final[Mapping[str, int]] = {
    "OTEL_BSP_MAX_QUEUE_SIZE": 2048,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 512,
    "OTEL_BLRP_MAX_QUEUE_SIZE": 2048,
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": 512,
}
_LIMITS_OF_SPANS: Final[Mapping[str, str]] = {
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "cut",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "cut",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "dropped",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "dropped",
}
_OTHER_LIMITS: Final = (
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
)
_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "OTEL_METRICS_EXEMPLAR_FILTER": ("always_on", "always_off", "trace_based"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "explicit_bucket_histogram",
        "base2_exponential_bucket_histogram",
    ),
    "OTEL_PYTHON_CONTEXT": ("contextvars_context",),
    "OTEL_PYTHON_METER_PROVIDER": ("default_meter_provider", "sdk_meter_provider"),
    "OTEL_PYTHON_TRACER_PROVIDER": ("default_tracer_provider", "sdk_tracer_provider"),
    "OTEL_PYTHON_LOGGER_PROVIDER": ("sdk_logger_provider",),
}
_PROPAGATORS: Final = frozenset({"tracecontext", "baggage"})
_DETECTORS: Final = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
_OF_PLUGINS: Final = (
    *(
        f"OTEL_PYTHON_EXPORTER_OTLP_{protocol}_{signal}CREDENTIAL_PROVIDER"
        for protocol in ("HTTP", "GRPC")
        for signal in ("", "TRACES_", "METRICS_", "LOGS_")
    ),
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES",
)


def sdk_problems(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the problems of the variables, each with what to do; an empty variable counts as not set."""
    given = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()}
    return [problem for check in (_switches, _numbers, _limits, _names) for problem in check(given)]


def _switches(given: Mapping[str, str]) -> Iterator[str]:
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield (
            "OTEL_SDK_DISABLED=true would silence the audit trail: unset it, and use OTEL_TRACES_EXPORTER=none, "
            "OTEL_METRICS_EXPORTER=none and OTEL_LOGS_EXPORTER=none to switch off ordinary telemetry"
        )
    for name in _FILES:
        if name in given:
            yield (
                f"{name}: a configuration file is not read, and would leave out the audit trail: unset it, and use the "
                "OTEL_* variables of docs/configuration.md"
            )
    for name in _OF_PLUGINS:
        if name in given:
            yield f"{name}: not supported, as audit delivery could not follow it: use OTEL_EXPORTER_OTLP_HEADERS"


def _numbers(given: Mapping[str, str]) -> Iterator[str]:
    for name in (*_INTERVALS, *_QUEUES):
        if name in given and not (_is_whole(given[name]) and int(given[name]) > 0):
            yield f"{name}: {given[name]!r} is not a positive whole number"
    for kind in ("BSP", "BLRP"):
        queue, batch = f"OTEL_{kind}_MAX_QUEUE_SIZE", f"OTEL_{kind}_MAX_EXPORT_BATCH_SIZE"
        sizes = [given.get(name, str(_QUEUES[name])) for name in (queue, batch)]
        if all(map(_is_whole, sizes)) and int(sizes[1]) > int(sizes[0]):
            yield f"{batch} is {sizes[1]}, and must not be more than {queue}, which is {sizes[0]}"


def _limits(given: Mapping[str, str]) -> Iterator[str]:
    for name, effect in _LIMITS_OF_SPANS.items():
        if name in given and not (_is_whole(given[name]) and int(given[name]) >= FEWEST):
            yield f"{name}: must be {FEWEST} or more, or the ids of audit records on spans are {effect}"
    for name in _OTHER_LIMITS:
        if name in given and not _is_whole(given[name]):
            yield f"{name}: {given[name]!r} is not a whole number"


def _names(given: Mapping[str, str]) -> Iterator[str]:
    for name, choices in _CHOICES.items():
        if name in given and given[name].lower() not in choices:
            yield f"{name}: {given[name]!r} is none of {', '.join(choices)}"
    if "OTEL_PROPAGATORS" in given:
        named = _listed(given["OTEL_PROPAGATORS"])
        if "tracecontext" not in named or named - _PROPAGATORS:
            yield "OTEL_PROPAGATORS: only W3C Trace Context is read and written: unset it, or set tracecontext"
    if _DETECTORS in given:
        # These are installed. The SDK leaves any other out, and logs a traceback.
        known = entry_points(group="opentelemetry_resource_detector").names
        for unknown in sorted(_listed(given[_DETECTORS]) - known - {"*"}):
            yield f"{_DETECTORS}: {unknown!r} is none of {', '.join(sorted(known))}"


def _listed(text: str) -> frozenset[str]:
    return frozenset(part for item in text.split(",") if (part := item.strip()))


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16
