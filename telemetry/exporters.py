"""The exporters of traces, metrics and ordinary logs that the settings ask for.

They read endpoints, headers, certificates, compression and timeouts from the process environment themselves. The gRPC
ones are imported where they are used, because importing gRPC costs more than starting a command.
"""

import sys

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, LogRecordExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from telemetry.otel_settings import CONSOLE, GRPC, OTLP, SignalSettings

# The console is standard error: standard output belongs to what commands print.


def span_exporters(settings: SignalSettings) -> list[SpanExporter]:
    """Return the exporters of spans."""
    exporters: list[SpanExporter] = []
    if OTLP in settings.exporters:
        exporters.append(_grpc_span_exporter() if settings.protocol == GRPC else OTLPSpanExporter())
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleSpanExporter(out=sys.stderr))
    return exporters


def metric_exporters(settings: SignalSettings) -> list[MetricExporter]:
    """Return the exporters of metrics."""
    exporters: list[MetricExporter] = []
    if OTLP in settings.exporters:
        exporters.append(_grpc_metric_exporter() if settings.protocol == GRPC else OTLPMetricExporter())
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleMetricExporter(out=sys.stderr))
    return exporters


def log_exporters(settings: SignalSettings) -> list[LogRecordExporter]:
    """Return the exporters of ordinary logs."""
    exporters: list[LogRecordExporter] = []
    if OTLP in settings.exporters:
        exporters.append(_grpc_log_exporter() if settings.protocol == GRPC else OTLPLogExporter())
    if CONSOLE in settings.exporters:
        exporters.append(ConsoleLogRecordExporter(out=sys.stderr))
    return exporters


def _grpc_span_exporter() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _grpc_metric_exporter() -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()


def _grpc_log_exporter() -> LogRecordExporter:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    return OTLPLogExporter()
