"""Reads the standard `OTEL_*` variables from a mapping, and checks them together.

The SDK reads most of these variables itself, but later: for a wrong value it writes a log line and uses a default. Here
wrong values are refused before anything starts.

Source: OpenTelemetry specification, environment variables; https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from telemetry.errors import TelemetrySettingsError
from telemetry.otlp_settings import GRPC, HTTP, OtlpVariables, Signal
from telemetry.sdk_variables import sdk_problems
from telemetry.settings import SettingsReader
from telemetry.urls import shown

SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")
OTLP: Final = "otlp"
CONSOLE: Final = "console"
SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_DEFAULT_ENDPOINT: Final[Mapping[str, str]] = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}


class SignalSettings(msgspec.Struct, frozen=True):
    """Where one signal is sent (`otlp`, `console`, both, or nowhere), and by which protocol and proxy for OTLP."""

    exporters: frozenset[str]
    protocol: str
    headers: Mapping[str, str] = {}
    proxy: str | None = None
    """The URL of the proxy, which may hold credentials; None connects to the endpoint directly."""
    compression: str = "none"
    """`none`, `gzip` or `deflate`."""
    endpoint: str | None = None
    """Where OTLP is sent, as the variable says it; it may hold credentials. None without OTLP."""


class OtelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that are read here and not by the SDK."""

    traces: SignalSettings
    metrics: SignalSettings
    logs: SignalSettings
    sampler: str
    sampler_ratio: float
    resource: Mapping[str, str]


def read_otel_settings(environment: Mapping[str, str]) -> OtelSettings:
    """Return the settings that the variables ask for.

    A signal without `OTEL_*_EXPORTER` is sent by OTLP if an endpoint is set for it, else nowhere. OTLP uses HTTP unless
    `grpc` is asked for. Every span is sampled unless a sampler is named: with a parent-based sampler, a client whose
    traceparent says "not sampled" could erase its trace.

    Raises:
        TelemetrySettingsError: lists every variable that is wrong, with what it should be.
    """
    reader = SettingsReader(environment)
    signals = {signal: _signal(reader, signal) for signal in SIGNALS}
    sampler = reader.choice("OTEL_TRACES_SAMPLER", "always_on", SAMPLERS)
    settings = OtelSettings(
        traces=signals["traces"],
        metrics=signals["metrics"],
        logs=signals["logs"],
        sampler=sampler,
        sampler_ratio=reader.parsed("OTEL_TRACES_SAMPLER_ARG", 1.0, _ratio) if sampler.endswith("ratio") else 1.0,
        resource=_resource(reader),
    )
    problems = [*sdk_problems(environment), *reader.problems]
    if problems:
        raise TelemetrySettingsError(*problems, is_unread=reader.unread == len(problems))
    return settings


def _signal(reader: SettingsReader, signal: Signal) -> SignalSettings:
    otlp = OtlpVariables(reader, signal)
    endpoint = otlp.find("ENDPOINT")
    exporters = _exporters(reader, signal, has_endpoint=endpoint is not None)
    protocol = otlp.protocol() or HTTP
    if OTLP not in exporters:
        return SignalSettings(exporters, protocol)
    if endpoint is not None and protocol == HTTP and not _is_http_url(endpoint[1]):
        reader.add(f"{endpoint[0]}: {shown(endpoint[1])!r} is not a URL such as http://localhost:4318")
    # The SDK uses these; here they are only checked.
    for suffix in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
        otlp.file(suffix)
    otlp.timeout_s()
    address = _DEFAULT_ENDPOINT[protocol] if endpoint is None else endpoint[1]
    if protocol == GRPC:
        proxy = otlp.proxy(protocol, address.partition("://")[2] or address)
    else:
        proxy = otlp.proxy(protocol, address) if _is_http_url(address) else None
    compression = otlp.compression(protocol, _COMPRESSIONS)
    return SignalSettings(exporters, protocol, otlp.headers(protocol), proxy, compression, address)


def _exporters(reader: SettingsReader, signal: Signal, *, has_endpoint: bool) -> frozenset[str]:
    # `prometheus` changes nothing: /metrics is always served.
    known = {OTLP, CONSOLE, "none", *(["prometheus"] if signal == "metrics" else [])}
    found = reader.find(f"OTEL_{signal.upper()}_EXPORTER")
    if found is None:
        return frozenset({OTLP} if has_endpoint else ())
    chosen = {text.strip() for text in found[1].split(",")}
    for text in sorted(chosen - known):
        reader.add(f"{found[0]}: {text!r} is none of {', '.join(sorted(known))}")
    return frozenset(chosen & {OTLP, CONSOLE})


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"{text!r} is not a number from 0 to 1")
    return ratio


def _resource(reader: SettingsReader) -> Mapping[str, str]:
    attributes: dict[str, str] = {}
    for pair in reader.text("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, separator, value = pair.partition("=")
        if separator and key.strip():
            attributes[key.strip()] = unquote(value.strip())
        elif pair.strip():
            reader.add(f"OTEL_RESOURCE_ATTRIBUTES: {pair.strip()!r} is not key=value")
    name = reader.get("OTEL_SERVICE_NAME")
    if name is not None:
        attributes["service.name"] = name
    if any("\ud800" <= character <= "\udfff" for pair in attributes.items() for text in pair for character in text):
        reader.add("OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME must be UTF-8")
    return attributes


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
