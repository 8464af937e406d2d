"""Makes the exporters of traces, metrics and ordinary logs that the settings ask for.

The exporters read endpoints, certificates and timeouts from the process environment themselves. They get the headers as
they were checked. The gRPC exporters get the compression too: by themselves they know `gzip` only. Exporters
are imported where they are made, because the import of gRPC takes longer than the start of a command.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, LogRecordExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from telemetry.otel_settings import CONSOLE, OTLP, SignalSettings
from telemetry.otlp_headers import metadata_of
from telemetry.otlp_settings import GRPC
from telemetry.proxies import grpc_options

E = TypeVar("E")


def span_exporters(settings: SignalSettings) -> list[SpanExporter]:
    """Return the exporters of spans."""
    return _exporters(settings, "trace_exporter", "OTLPSpanExporter", ConsoleSpanExporter)


def metric_exporters(settings: SignalSettings) -> list[MetricExporter]:
    """Return the exporters of metrics."""
    return _exporters(settings, "metric_exporter", "OTLPMetricExporter", ConsoleMetricExporter)


def log_exporters(settings: SignalSettings) -> list[LogRecordExporter]:
    """Return the exporters of ordinary logs."""
    return _exporters(settings, "_log_exporter", "OTLPLogExporter", ConsoleLogRecordExporter)


def _exporters(settings: SignalSettings, module: str, name: str, to_console: Callable[..., E]) -> list[E]:
    exporters: list[E] = []
    if OTLP in settings.exporters:
        # Modules and classes have the same names in the packages of both protocols.
        is_grpc = settings.protocol == GRPC
        over_otlp = import_module(f"opentelemetry.exporter.otlp.proto.{'grpc' if is_grpc else 'http'}.{module}")
        arguments = _grpc_arguments(settings) if is_grpc else _http_arguments(settings)
        exporters.append(getattr(over_otlp, name)(**arguments))
    if CONSOLE in settings.exporters:
        # The console is standard error. Commands print their results to standard output.
        exporters.append(to_console(out=sys.stderr))
    return exporters


class _Proxied(HTTPAdapter):
    """Sends through one proxy, or through none, whatever proxies the session reads from the environment."""

    def __init__(self, proxy: str | None) -> None:
        super().__init__()
        # Every SOCKS proxy resolves the names of hosts itself, as in audit delivery.
        url = None if proxy is None else proxy.replace("socks5://", "socks5h://", 1)
        self._proxies = {} if url is None else {"http": url, "https": url}

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """Send the request through this adapter's proxy."""
        return super().send(request, *args, **{**kwargs, "proxies": self._proxies})


def _http_arguments(settings: SignalSettings) -> dict[str, Any]:
    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Proxied(settings.proxy))
    return {"headers": settings.headers, "session": session}


def _grpc_arguments(settings: SignalSettings) -> dict[str, Any]:
    """Return what an exporter over gRPC is made with.

    The types that the exporters state are narrower than what they hand on to gRPC: binary metadata, numbers as options.
    """
    from grpc import Compression

    compressions = {"none": Compression.NoCompression, "gzip": Compression.Gzip, "deflate": Compression.Deflate}
    return {
        "headers": metadata_of(settings.headers),
        "channel_options": tuple(grpc_options(settings.proxy)),
        "compression": compressions[settings.compression],
    }
