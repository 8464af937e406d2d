"""The exporters of traces, metrics and ordinary logs that the settings ask for.

They read endpoints, certificates and timeouts from the process environment themselves; headers are given to them as
they were checked, and compression too to those of gRPC, which by themselves know `gzip` alone. The gRPC ones are
imported where they are used, because importing gRPC costs more than starting a command.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, LogRecordExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from telemetry.otel_settings import CONSOLE, OTLP, SignalSettings
from telemetry.otlp_headers import metadata_of
from telemetry.otlp_settings import GRPC
from telemetry.proxies import grpc_options

# The console is standard error: standard output belongs to what commands print.


def span_exporters(settings: SignalSettings) -> list[SpanExporter]:
    """Return the exporters of spans."""
    exporters: list[SpanExporter] = []
    if OTLP in settings.exporters:
        is_grpc = settings.protocol == GRPC
        exporters.append(
            _grpc_span_exporter(settings)
            if is_grpc
            else OTLPSpanExporter(headers=settings.headers, session=_session(settings))
        )
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleSpanExporter(out=sys.stderr))
    return exporters


def metric_exporters(settings: SignalSettings) -> list[MetricExporter]:
    """Return the exporters of metrics."""
    exporters: list[MetricExporter] = []
    if OTLP in settings.exporters:
        exporters.append(
            _grpc_metric_exporter(settings)
            if settings.protocol == GRPC
            else OTLPMetricExporter(headers=settings.headers, session=_session(settings))
        )
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleMetricExporter(out=sys.stderr))
    return exporters


def log_exporters(settings: SignalSettings) -> list[LogRecordExporter]:
    """Return the exporters of ordinary logs."""
    exporters: list[LogRecordExporter] = []
    if OTLP in settings.exporters:
        is_grpc = settings.protocol == GRPC
        exporters.append(
            _grpc_log_exporter(settings)
            if is_grpc
            else OTLPLogExporter(headers=settings.headers, session=_session(settings))
        )
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleLogRecordExporter(out=sys.stderr))
    return exporters


class _Proxied(HTTPAdapter):
    """Sends through one proxy, or through none, whatever the session has read from the environment."""

    def __init__(self, proxy: str | None) -> None:
        super().__init__()
        # Every SOCKS proxy resolves names itself, as those of audit delivery do.
        url = None if proxy is None else proxy.replace("socks5://", "socks5h://", 1)
        self._proxies = {} if url is None else {"http": url, "https": url}

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send the request through this adapter's proxy."""
        del proxies
        return super().send(request, stream, timeout, verify, cert, self._proxies)


def _session(settings: SignalSettings) -> Session:
    session = Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Proxied(settings.proxy))
    return session


def _channel_options(settings: SignalSettings) -> tuple[tuple[str, str]]:
    # The exporters state a narrower type than gRPC takes.
    return cast("tuple[tuple[str, str]]", tuple(grpc_options(settings.proxy)))


def _grpc_span_exporter(settings: SignalSettings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(
        headers=_metadata(settings),
        channel_options=_channel_options(settings),
        compression=_grpc_compression(settings),
    )


def _grpc_metric_exporter(settings: SignalSettings) -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(
        headers=_metadata(settings),
        channel_options=_channel_options(settings),
        compression=_grpc_compression(settings),
    )


def _grpc_log_exporter(settings: SignalSettings) -> LogRecordExporter:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    return OTLPLogExporter(
        headers=_metadata(settings),
        channel_options=_channel_options(settings),
        compression=_grpc_compression(settings),
    )


def _grpc_compression(settings: SignalSettings) -> Any:
    # gRPC comes without types.
    known = import_module("grpc").Compression
    return {"none": known.NoCompression, "gzip": known.Gzip, "deflate": known.Deflate}[settings.compression]


def _metadata(settings: SignalSettings) -> Sequence[tuple[str, str]]:
    # The exporters' type knows no binary metadata; what they do with it is to hand it on to gRPC.
    return cast("Sequence[tuple[str, str]]", metadata_of(settings.headers))
