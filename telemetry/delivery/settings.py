"""Where audit records are delivered and how: the endpoint of the audit trail, else the standard OTLP variables.

Source: OpenTelemetry Protocol Exporter, "Configuration Options"; timeouts are seconds, as the Python SDK has them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from telemetry.delivery.endpoints import GRPC, HTTP, Endpoint, Protocol, audit_endpoint, standard_endpoint
from telemetry.errors import TelemetrySettingsError
from telemetry.files import unreadable
from telemetry.otlp_headers import parse_headers
from telemetry.proxies import grpc_proxy, http_proxy

_DEFAULT_TIMEOUT_S: Final = 10.0
_LONGEST_TIMEOUT_S: Final = 3600.0
_COMPRESSIONS: Final[Mapping[str, frozenset[str]]] = {
    HTTP: frozenset({"none", "gzip", "deflate", "zstd"}),
    GRPC: frozenset({"none", "gzip", "deflate"}),
}


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a sink; files are named, not read, because they may change while the process runs."""

    protocol: Protocol
    endpoint: str
    """A URL for HTTP, `host:port` for gRPC."""
    is_secure: bool
    headers: Mapping[str, str] = {}
    timeout_s: float = _DEFAULT_TIMEOUT_S
    compression: str = "none"
    certificate: Path | None = None
    """The authorities that may have signed the sink's certificate; those of the system when None."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    token_file: Path | None = None
    """A file that holds a bearer token."""
    proxy: str | None = None
    """The URL of the proxy, which may hold credentials; None to connect to the endpoint itself."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is named."""
        named = (self.certificate, self.client_certificate, self.client_key, self.token_file)
        return tuple(path for path in named if path is not None)


def sink_settings(
    environment: Mapping[str, str], endpoint: str | None, token_file: Path | None = None
) -> SinkSettings | None:
    """Return where records are to be delivered; None when no endpoint is set, which means the embedded archive.

    Args:
        environment: for the variables `OTEL_EXPORTER_OTLP_LOGS_*`, then `OTEL_EXPORTER_OTLP_*`.
        endpoint: that of the audit trail, AUDITRACE_AUDIT_ENDPOINT, which comes before theirs.
        token_file: AUDITRACE_AUDIT_TOKEN_FILE: holds a bearer token that is sent with every request.

    Raises:
        TelemetrySettingsError: listing everything that is wrong, with what it should be.
    """
    reader = _Reader(environment)
    if not reader.has_endpoint(endpoint):
        return None
    target = reader.endpoint(endpoint)
    settings = SinkSettings(
        protocol=target.protocol,
        endpoint=target.address,
        is_secure=target.is_secure,
        headers=reader.headers(target.protocol),
        timeout_s=reader.timeout_s(),
        compression=reader.compression(target.protocol),
        certificate=reader.file("CERTIFICATE"),
        client_certificate=reader.file("CLIENT_CERTIFICATE"),
        client_key=reader.file("CLIENT_KEY"),
        token_file=None if token_file is None else reader.existing("AUDITRACE_AUDIT_TOKEN_FILE", token_file),
        proxy=reader.proxy(target),
    )
    if settings.client_key is not None and settings.client_certificate is None:
        reader.problems.append("OTEL_EXPORTER_OTLP_CLIENT_KEY needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too")
    if reader.problems:
        raise TelemetrySettingsError(*reader.problems, is_unread=reader.unread == len(reader.problems))
    return settings


class _Reader:
    """Reads variables and collects what is wrong with them; an empty variable means "not set"."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []
        self.unread = 0
        """How many of them are about files that could not be looked at."""

    def has_endpoint(self, endpoint: str | None) -> bool:
        return bool(endpoint) or self._text("ENDPOINT") is not None

    def endpoint(self, endpoint: str | None) -> Endpoint:
        protocol = self._protocol()
        name, text = ("AUDITRACE_AUDIT_ENDPOINT", endpoint) if endpoint else self._text("ENDPOINT") or ("", "")
        try:
            if endpoint:
                return audit_endpoint(text, protocol)
            insecure = self._text("INSECURE")
            is_insecure = insecure is not None and insecure[1].lower() == "true"
            is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT"
            return standard_endpoint(text, protocol, is_base=is_base, is_insecure=is_insecure)
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
            return Endpoint(HTTP, "", is_secure=False)

    def proxy(self, target: Endpoint) -> str | None:
        if not target.address:
            return None
        proxy_to = grpc_proxy if target.protocol == GRPC else http_proxy
        try:
            return proxy_to(self._environment, target.address)
        except TelemetrySettingsError as error:
            self.problems.extend(error.problems)
            return None

    def headers(self, protocol: Protocol) -> Mapping[str, str]:
        setting, text = self._text("HEADERS") or ("", "")
        try:
            return parse_headers(text, is_grpc=protocol == GRPC)
        except ValueError as error:
            self.problems.append(f"{setting}: {error}")
            return {}

    def timeout_s(self) -> float:
        setting, text = self._text("TIMEOUT") or ("", str(_DEFAULT_TIMEOUT_S))
        try:
            timeout_s = float(text)
        except ValueError:
            timeout_s = 0.0
        if not 0.0 < timeout_s <= _LONGEST_TIMEOUT_S:
            self.problems.append(f"{setting}: {text!r} is not a number of seconds up to {_LONGEST_TIMEOUT_S:.0f}")
        return timeout_s

    def compression(self, protocol: Protocol) -> str:
        setting, text = self._text("COMPRESSION") or ("", "none")
        known = _COMPRESSIONS[protocol]
        if text.lower() not in known:
            self.problems.append(f"{setting}: {text!r} is none of {', '.join(sorted(known))}, over {protocol}")
        return text.lower()

    def file(self, suffix: str) -> Path | None:
        found = self._text(suffix)
        return None if found is None else self.existing(found[0], Path(found[1]))

    def existing(self, setting: str, path: Path) -> Path:
        found = unreadable(path)
        if found is not None:
            self.problems.append(f"{setting}: {found.why}")
            self.unread += not found.is_missing
        return path

    def _protocol(self) -> str | None:
        found = self._text("PROTOCOL")
        if found is None:
            return None
        if found[1] not in {HTTP, GRPC}:
            self.problems.append(f"{found[0]}: {found[1]!r} is none of {HTTP}, {GRPC}")
        return found[1]

    def _text(self, suffix: str) -> tuple[str, str] | None:
        """Return name and value of the more specific of two variables that is set."""
        for name in (f"OTEL_EXPORTER_OTLP_LOGS_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
            value = self._environment.get(name, "").strip()
            if value:
                return name, value
        return None
