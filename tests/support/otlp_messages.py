"""What travels over OTLP, for tests: requests and responses of the three signals, and their content as plain Python."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Message = logs_pb.ExportLogsServiceRequest | trace_pb.ExportTraceServiceRequest | metrics_pb.ExportMetricsServiceRequest
Response = (
    logs_pb.ExportLogsServiceResponse | trace_pb.ExportTraceServiceResponse | metrics_pb.ExportMetricsServiceResponse
)
Resource = dict[str, object]

TYPE_OF_PATH: Mapping[str, type[Message]] = {
    "/v1/logs": logs_pb.ExportLogsServiceRequest,
    "/v1/traces": trace_pb.ExportTraceServiceRequest,
    "/v1/metrics": metrics_pb.ExportMetricsServiceRequest,
}
TYPE_OF_SERVICE: Mapping[str, type[Message]] = {
    "opentelemetry.proto.collector.logs.v1.LogsService": logs_pb.ExportLogsServiceRequest,
    "opentelemetry.proto.collector.trace.v1.TraceService": trace_pb.ExportTraceServiceRequest,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": metrics_pb.ExportMetricsServiceRequest,
}

REJECTION = "rejected by the test"
"""What `partial_success` says."""


class ReceivedSpan(NamedTuple):
    """A span with the attributes of its resource."""

    resource: Resource
    span: Span


class ReceivedLog(NamedTuple):
    """A log record with the attributes of its resource."""

    resource: Resource
    record: LogRecord


class ReceivedMetric(NamedTuple):
    """A metric, with its points of one export, with the attributes of its resource."""

    resource: Resource
    metric: Metric


def plain_value(value: AnyValue) -> object:
    """Returns an OTLP value as Python's own; an unset one is None."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return plain_attributes(value.kvlist_value.values)
    return getattr(value, kind)


def plain_attributes(pairs: Iterable[KeyValue]) -> Resource:
    """Returns OTLP attributes as a dictionary."""
    return {pair.key: plain_value(pair.value) for pair in pairs}


def spans_of(messages: Iterable[Message]) -> list[ReceivedSpan]:
    """Returns the spans of all trace requests among the messages, in their order."""
    return [
        ReceivedSpan(plain_attributes(group.resource.attributes), span)
        for message in messages
        if isinstance(message, trace_pb.ExportTraceServiceRequest)
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def log_records_of(messages: Iterable[Message]) -> list[ReceivedLog]:
    """Returns the records of all log requests among the messages, in their order."""
    return [
        ReceivedLog(plain_attributes(group.resource.attributes), record)
        for message in messages
        if isinstance(message, logs_pb.ExportLogsServiceRequest)
        for group in message.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def metrics_of(messages: Iterable[Message]) -> list[ReceivedMetric]:
    """Returns the metrics of all metric requests among the messages, in their order."""
    return [
        ReceivedMetric(plain_attributes(group.resource.attributes), metric)
        for message in messages
        if isinstance(message, metrics_pb.ExportMetricsServiceRequest)
        for group in message.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    ]


def response_to(message: Message, rejected: int) -> Response:
    """Returns the success response of the message's signal, with `partial_success` when some are rejected."""
    if isinstance(message, logs_pb.ExportLogsServiceRequest):
        logs = logs_pb.ExportLogsServiceResponse()
        if rejected:
            logs.partial_success.rejected_log_records = rejected
            logs.partial_success.error_message = REJECTION
        return logs
    if isinstance(message, metrics_pb.ExportMetricsServiceRequest):
        metrics = metrics_pb.ExportMetricsServiceResponse()
        if rejected:
            metrics.partial_success.rejected_data_points = rejected
            metrics.partial_success.error_message = REJECTION
        return metrics
    traces = trace_pb.ExportTraceServiceResponse()
    if rejected:
        traces.partial_success.rejected_spans = rejected
        traces.partial_success.error_message = REJECTION
    return traces
