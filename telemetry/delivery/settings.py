"""Where and how audit records are delivered: by the endpoint of the audit trail, else by the standard OTLP variables.

Source: OpenTelemetry Protocol Exporter, "Configuration Options"; timeouts are in seconds, as in the Python SDK.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from telemetry.delivery.endpoints import Endpoint, audit_endpoint, standard_endpoint
from telemetry.errors import TelemetrySettingsError
from telemetry.otlp_headers import authorization
from telemetry.otlp_settings import DEFAULT_TIMEOUT_S, GRPC, HTTP, OtlpVariables, Protocol
from telemetry.settings import SettingsReader

_COMPRESSIONS: Final[Mapping[str, frozenset[str]]] = {
    HTTP: frozenset({"none", "gzip", "deflate", "zstd"}),
    GRPC: frozenset({"none", "gzip", "deflate"}),
}


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is reached. Files are named and not read, because they may change while the process runs."""

    protocol: Protocol
    endpoint: str
    """A URL for HTTP, `host:port` for gRPC."""
    is_secure: bool
    headers: Mapping[str, str] = {}
    timeout_s: float = DEFAULT_TIMEOUT_S
    compression: str = "none"
    certificate: Path | None = None
    """The authorities that may have signed the sink's certificate; None is the authorities of the system."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    token_file: Path | None = None
    """A file that holds a bearer token."""
    proxy: str | None = None
    """The URL of the proxy, which may hold credentials; None connects to the endpoint directly."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the settings name."""
        named = (self.certificate, self.client_certificate, self.client_key, self.token_file)
        return tuple(path for path in named if path is not None)

    def read_headers(self) -> dict[str, str]:
        """Return the headers of every request, with the bearer token that the file holds now.

        Raises:
            OSError: the token file cannot be read.
            ValueError: it does not hold one token that can be sent.
        """
        token = {} if self.token_file is None else {"authorization": authorization(self.token_file)}
        return {**self.headers, **token}


def sink_settings(
    environment: Mapping[str, str], endpoint: str | None, token_file: Path | None = None
) -> SinkSettings | None:
    """Return where records are delivered. None means that no endpoint is set: the embedded archive is used.

    Args:
        environment: holds the variables `OTEL_EXPORTER_OTLP_LOGS_*`, then `OTEL_EXPORTER_OTLP_*`.
        endpoint: AUDITRACE_AUDIT_ENDPOINT, the endpoint of the audit trail; it comes before those of `environment`.
        token_file: AUDITRACE_AUDIT_TOKEN_FILE: holds a bearer token that is sent with every request.

    Raises:
        TelemetrySettingsError: lists every setting that is wrong, with what it should be.
    """
    reader = SettingsReader(environment)
    otlp = OtlpVariables(reader, "logs")
    found = ("AUDITRACE_AUDIT_ENDPOINT", endpoint) if endpoint else otlp.find("ENDPOINT")
    if found is None:
        return None
    asked = otlp.protocol()
    name, text = found
    is_insecure = (otlp.find("INSECURE") or ("", ""))[1].lower() == "true"
    try:
        if endpoint:
            target = audit_endpoint(text, asked)
        else:
            is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT"
            target = standard_endpoint(text, asked, is_base=is_base, is_insecure=is_insecure)
    except ValueError as error:
        reader.add(f"{name}: {error}")
        target = Endpoint(HTTP, "", is_secure=False)
    settings = SinkSettings(
        protocol=target.protocol,
        endpoint=target.address,
        is_secure=target.is_secure,
        headers=otlp.headers(target.protocol),
        timeout_s=otlp.timeout_s(),
        compression=otlp.compression(target.protocol, _COMPRESSIONS[target.protocol]),
        certificate=otlp.file("CERTIFICATE"),
        client_certificate=otlp.file("CLIENT_CERTIFICATE"),
        client_key=otlp.file("CLIENT_KEY"),
        token_file=None if token_file is None else reader.existing("AUDITRACE_AUDIT_TOKEN_FILE", token_file),
        proxy=otlp.proxy(target.protocol, target.address) if target.address else None,
    )
    if settings.client_key is not None and settings.client_certificate is None:
        reader.add("OTEL_EXPORTER_OTLP_CLIENT_KEY needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too")
    if reader.problems:
        raise TelemetrySettingsError(*reader.problems, is_unread=reader.unread == len(reader.problems))
    return settings
