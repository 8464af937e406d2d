"""Reads an endpoint: its protocol, its address, and whether TLS is used.

Source: OpenTelemetry Protocol Exporter, "Endpoint URLs for OTLP/HTTP"; https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from telemetry.otlp_settings import GRPC, HTTP, Protocol
from telemetry.urls import shown

LOGS_PATH: Final = "/v1/logs"

_GRPC_PORTS: Final = {4317, 4327}
_GRPC_SCHEMES: Final = {"grpc", "grpcs"}


class Endpoint(msgspec.Struct, frozen=True):
    """Where requests are sent; `address` is a URL for HTTP, `host:port` for gRPC."""

    protocol: Protocol
    address: str
    is_secure: bool


def audit_endpoint(text: str, protocol: str | None) -> Endpoint:
    """Return the endpoint that the text of AUDITRACE_AUDIT_ENDPOINT names.

    `grpc://` and `grpcs://` are gRPC; another URL with a path is HTTP. A URL without a path has the given `protocol`;
    without a given protocol it is gRPC on the ports 4317 and 4327, else HTTP on `/v1/logs`.

    Raises:
        ValueError: the text is no such URL.
    """
    url = _url(text, "http", "https", *_GRPC_SCHEMES)
    is_secure = url.scheme in {"https", "grpcs"}
    if url.scheme in _GRPC_SCHEMES or (not _has_path(url) and _means_grpc(url, protocol)):
        return Endpoint(GRPC, _target(url), is_secure)
    return Endpoint(HTTP, text if _has_path(url) else url._replace(path=LOGS_PATH).geturl(), is_secure)


def standard_endpoint(text: str, protocol: str | None, *, is_base: bool, is_insecure: bool) -> Endpoint:
    """Return the endpoint that OTEL_EXPORTER_OTLP_ENDPOINT, or the same variable for logs, names.

    Args:
        text: a URL; for gRPC also `host:port`.
        protocol: the protocol that is asked for. With None it is gRPC on the ports 4317 and 4327, else HTTP.
        is_base: for HTTP, `/v1/logs` is appended.
        is_insecure: a text without a scheme is used without TLS.

    Raises:
        ValueError: the text is no such URL.
    """
    if "://" not in text:
        text = f"{'http' if is_insecure else 'https'}://{text}"
    url = _url(text, "http", "https")
    is_grpc = protocol == GRPC if _has_path(url) else _means_grpc(url, protocol)
    if is_grpc:
        return Endpoint(GRPC, _target(url), url.scheme == "https")
    path = url.path.rstrip("/") + LOGS_PATH if is_base else url.path or "/"
    return Endpoint(HTTP, url._replace(path=path).geturl(), url.scheme == "https")


def _url(text: str, *schemes: str) -> SplitResult:
    try:
        url = urlsplit(text)
        is_url = url.scheme in schemes and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:
        is_url, url = False, urlsplit("")
    if not is_url:
        raise ValueError(
            f"{shown(text)!r} is not a URL such as http://localhost:4328{LOGS_PATH} or grpc://localhost:4327"
        )
    if url.username or url.password:
        # The URL is not shown, because it holds a secret.
        raise ValueError("credentials do not belong in the URL: use OTEL_EXPORTER_OTLP_HEADERS or a token file")
    return url


def _has_path(url: SplitResult) -> bool:
    return url.path not in {"", "/"}


def _means_grpc(url: SplitResult, protocol: str | None) -> bool:
    return protocol == GRPC if protocol is not None else url.port in _GRPC_PORTS


def _target(url: SplitResult) -> str:
    host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else url.hostname
    return f"{host}:{url.port or (443 if url.scheme in {'https', 'grpcs'} else 4317)}"
