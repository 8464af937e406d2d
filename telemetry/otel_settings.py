"""What the standard `OTEL_*` variables ask for, read from a mapping and checked together.

The SDK reads most of these variables itself, later, and answers mistakes with a line in the log and a default; here
they are refused before anything starts.

Source: OpenTelemetry specification, environment variables; https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from telemetry.errors import TelemetrySettingsError
from telemetry.files import unreadable
from telemetry.otlp_headers import parse_headers
from telemetry.proxies import grpc_proxy, http_proxy
from telemetry.sdk_variables import sdk_problems

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")
HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
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
LONGEST_TIMEOUT_S: Final = 3600
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_DEFAULT_ENDPOINT: Final[Mapping[str, str]] = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}


class SignalSettings(msgspec.Struct, frozen=True):
    """Where one signal goes: `otlp`, `console`, both, or nowhere; and how OTLP is spoken, through which proxy."""

    exporters: frozenset[str]
    protocol: str
    headers: Mapping[str, str] = {}
    proxy: str | None = None
    """The URL of the proxy, which may hold credentials; None to connect to the endpoint itself."""
    compression: str = "none"
    """`none`, `gzip` or `deflate`."""


class OtelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is decided here and not by the SDK."""

    traces: SignalSettings
    metrics: SignalSettings
    logs: SignalSettings
    sampler: str
    sampler_ratio: float
    resource: Mapping[str, str]


def read_otel_settings(environment: Mapping[str, str]) -> OtelSettings:
    """Return what the variables ask for.

    A signal without `OTEL_*_EXPORTER` goes by OTLP if an endpoint is set for it, and nowhere if none is. OTLP is
    spoken over HTTP unless `grpc` is asked for. Every span is sampled unless a sampler is named.

    Raises:
        TelemetrySettingsError: listing every variable that is wrong, with what it should be.
    """
    reader = _Reader(environment)
    signals = {signal: reader.signal(signal) for signal in SIGNALS}
    sampler = reader.choice("OTEL_TRACES_SAMPLER", SAMPLERS, "always_on")
    settings = OtelSettings(
        traces=signals["traces"],
        metrics=signals["metrics"],
        logs=signals["logs"],
        sampler=sampler,
        sampler_ratio=reader.ratio("OTEL_TRACES_SAMPLER_ARG") if sampler.endswith("ratio") else 1.0,
        resource=reader.resource(),
    )
    problems = [*sdk_problems(environment), *reader.problems]
    if problems:
        # Once each: what is set for all signals is looked at for every one of them.
        raise TelemetrySettingsError(*dict.fromkeys(problems), is_unread=reader.unread == len(problems))
    return settings


class _Reader:
    """Reads variables and collects what is wrong with them; an empty variable means "not set"."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []
        self.unread = 0
        """How many of them are about files that could not be looked at."""

    def text(self, *names: str) -> tuple[str, str] | None:
        """Return name and value of the first of these variables that is set."""
        for name in names:
            value = self._environment.get(name, "").strip()
            if value:
                return name, value
        return None

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        found = self.text(name)
        if found is None:
            return default
        if found[1] in choices:
            return found[1]
        self.problems.append(f"{name}: {found[1]!r} is none of {', '.join(choices)}")
        return default

    def signal(self, signal: Signal) -> SignalSettings:
        endpoint = self.text(*_specific_first("ENDPOINT", signal))
        exporters = self._exporters(signal, has_endpoint=endpoint is not None)
        protocol = self._protocol(signal)
        if OTLP in exporters:
            self._check_otlp(signal, endpoint, protocol)
            proxy = self._proxy(protocol, _DEFAULT_ENDPOINT[protocol] if endpoint is None else endpoint[1])
            headers, compression = self._headers(signal, protocol), self._compression(signal)
            return SignalSettings(exporters, protocol, headers, proxy, compression)
        return SignalSettings(exporters, protocol)

    def _proxy(self, protocol: str, endpoint: str) -> str | None:
        try:
            if protocol == GRPC:
                return grpc_proxy(self._environment, endpoint.partition("://")[2] or endpoint)
            return http_proxy(self._environment, endpoint) if _is_http_url(endpoint) else None
        except TelemetrySettingsError as error:
            self.problems.extend(error.problems)
            return None

    def _headers(self, signal: Signal, protocol: str) -> Mapping[str, str]:
        name, text = self.text(*_specific_first("HEADERS", signal)) or ("", "")
        try:
            return parse_headers(text, is_grpc=protocol == GRPC)
        except ValueError as error:
            problem = f"{name}: {error}"
            if problem not in self.problems:
                self.problems.append(problem)
            return {}

    def _exporters(self, signal: Signal, *, has_endpoint: bool) -> frozenset[str]:
        name = f"OTEL_{signal.upper()}_EXPORTER"
        found = self.text(name)
        if found is None:
            return frozenset({OTLP} if has_endpoint else ())
        # `prometheus` asks for what /metrics gives anyway.
        known = {OTLP, CONSOLE, "none", *(["prometheus"] if signal == "metrics" else [])}
        chosen = {text.strip() for text in found[1].split(",")}
        for text in sorted(chosen - known):
            self.problems.append(f"{name}: {text!r} is none of {', '.join(sorted(known))}")
        return frozenset(chosen & {OTLP, CONSOLE})

    def _protocol(self, signal: Signal) -> str:
        found = self.text(*_specific_first("PROTOCOL", signal))
        if found is None:
            return HTTP
        name, protocol = found
        if protocol in {HTTP, GRPC}:
            return protocol
        self.problems.append(f"{name}: {protocol!r} is none of {HTTP}, {GRPC}")
        return HTTP

    def _check_otlp(self, signal: Signal, endpoint: tuple[str, str] | None, protocol: str) -> None:
        if endpoint is not None and protocol == HTTP and not _is_http_url(endpoint[1]):
            self.problems.append(f"{endpoint[0]}: {endpoint[1]!r} is not a URL such as http://localhost:4318")
        for suffix in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
            found = self.text(*_specific_first(suffix, signal))
            if found is not None and (file := unreadable(Path(found[1]))) is not None:
                self.problems.append(f"{found[0]}: {file.why}")
                self.unread += not file.is_missing
        timeout = self.text(*_specific_first("TIMEOUT", signal))
        if timeout is not None and not _is_timeout(timeout[1]):
            self.problems.append(f"{timeout[0]}: {timeout[1]!r} is not a number of seconds up to {LONGEST_TIMEOUT_S}")

    def _compression(self, signal: Signal) -> str:
        name, text = self.text(*_specific_first("COMPRESSION", signal)) or ("", "none")
        if text.lower() not in _COMPRESSIONS:
            self.problems.append(f"{name}: {text!r} is none of {', '.join(_COMPRESSIONS)}")
            return "none"
        return text.lower()

    def ratio(self, name: str) -> float:
        found = self.text(name)
        if found is None:
            return 1.0
        try:
            ratio = float(found[1])
        except ValueError:
            ratio = -1.0
        if not 0.0 <= ratio <= 1.0:
            self.problems.append(f"{name}: {found[1]!r} is not a number from 0 to 1")
        return ratio

    def resource(self) -> Mapping[str, str]:
        attributes: dict[str, str] = {}
        found = self.text("OTEL_RESOURCE_ATTRIBUTES")
        for pair in found[1].split(",") if found is not None else ():
            key, separator, value = pair.partition("=")
            if separator and key.strip():
                attributes[key.strip()] = unquote(value.strip())
            elif pair.strip():
                self.problems.append(f"OTEL_RESOURCE_ATTRIBUTES: {pair.strip()!r} is not key=value")
        name = self.text("OTEL_SERVICE_NAME")
        if name is not None:
            attributes["service.name"] = name[1]
        if any(_has_surrogates(text) for pair in attributes.items() for text in pair):
            self.problems.append("OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME must be UTF-8")
        return attributes


def _specific_first(suffix: str, signal: Signal) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _is_timeout(text: str) -> bool:
    try:
        return 0.0 < float(text) <= LONGEST_TIMEOUT_S
    except ValueError:
        return False


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
