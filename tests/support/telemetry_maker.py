"""Makes the requests that services send to a collector: sealed audit records, ordinary logs, spans."""

import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.resources import Resource

from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger, SealedRecord
from telemetry.audit.otlp import key_values, resource_logs_bytes
from telemetry.audit.signer import Signer
from tests.support.catalogue import every_event
from tests.support.ids import ManualClock, record_ids
from tests.support.ledger_maker import KEY
from tests.support.otlp_messages import ReceivedLog, log_records_of

SERVICE = "auditrace"
_START_NS = 1_767_323_045_000_000_000


class OneStream:
    """An open ledger that keeps what is appended."""

    def __init__(self) -> None:
        self.tip = Tip("e7507070-ef32-44b3-846d-9f04952e23ea")
        self.observe_ns = ManualClock()
        self.sealed: list[SealedRecord] = []

    def append(self, sealed: SealedRecord) -> None:
        self.sealed.append(sealed)
        self.tip = sealed.tip


class Pair(NamedTuple):
    """A parent span and its child, in two services."""

    parent: Span
    child: Span


def audit_request(prefix: int = 1) -> ExportLogsServiceRequest:
    """Returns a request with one sealed record of every event of the catalogue, as the relay sends it.

    Args:
        prefix: Goes into the record ids, so that two requests differ.
    """
    log, stream = (
        AuditLogger(Resource({names.SERVICE_NAME: SERVICE, "service.instance.id": "i-1"}), "0.1.0"),
        OneStream(),
    )
    for record in every_event(record_ids(prefix)):
        log.emit(record, stream, Signer(KEY))
    parts = resource_logs_bytes(log.resource_bytes, log.scope_bytes, [sealed.otlp for sealed in stream.sealed])
    return ExportLogsServiceRequest.FromString(parts)


def app_request(*texts: str, attributes: Mapping[str, Value] | None = None) -> ExportLogsServiceRequest:
    """Returns a request with ordinary log records of these texts."""
    records = [
        LogRecord(
            time_unix_nano=_START_NS,
            severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
            body=AnyValue(string_value=text),
            attributes=key_values(attributes or {}),
        )
        for text in texts
    ]
    return log_request(*records)


def record_of(span: Span, record_id: str, *, flags: int = 1) -> LogRecord:
    """Returns an audit record in the small that points to a span."""
    return LogRecord(
        time_unix_nano=_START_NS,
        attributes=key_values({names.AUDIT_RECORD_ID: record_id}),
        flags=flags,
        trace_id=span.trace_id,
        span_id=span.span_id,
    )


def log_request(*records: LogRecord) -> ExportLogsServiceRequest:
    """Returns a request with these records in one scope."""
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=_resource(SERVICE), scope_logs=[ScopeLogs(log_records=records)])]
    )


def one_scope(*requests: ExportLogsServiceRequest) -> ExportLogsServiceRequest:
    """Returns a request with the records of all these, taking turns, in one resource and scope: as mixed as can be."""
    groups = [[each.record for each in log_records_of([request])] for request in requests]
    longest = max(len(group) for group in groups)
    mixed = [group[at] for at in range(longest) for group in groups if at < len(group)]
    return log_request(*mixed)


def record_ids_of(logs: Sequence[ReceivedLog]) -> list[str]:
    """Returns the audit record ids among the attributes, in order; records without one are left out."""
    return [
        pair.value.string_value for each in logs for pair in each.record.attributes if pair.key == names.AUDIT_RECORD_ID
    ]


def texts_of(logs: Sequence[ReceivedLog]) -> list[str]:
    """Returns the bodies, in order."""
    return [each.record.body.string_value for each in logs]


def span(
    name: str,
    *,
    attributes: Mapping[str, Value] | None = None,
    parent: Span | None = None,
    kind: "Span.SpanKind.ValueType" = Span.SPAN_KIND_INTERNAL,
    duration_ms: int = 1,
    is_error: bool = False,
) -> Span:
    """Returns a span of random ids, in its parent's trace if it has one."""
    return Span(
        trace_id=parent.trace_id if parent else secrets.token_bytes(16),
        span_id=secrets.token_bytes(8),
        parent_span_id=parent.span_id if parent else b"",
        name=name,
        kind=kind,
        start_time_unix_nano=_START_NS,
        end_time_unix_nano=_START_NS + duration_ms * 1_000_000,
        attributes=key_values(attributes or {}),
        status=Status(code=Status.STATUS_CODE_ERROR if is_error else Status.STATUS_CODE_UNSET),
    )


def trace_request(*spans: Span, service: str = SERVICE) -> ExportTraceServiceRequest:
    """Returns a request with these spans of one service."""
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=_resource(service), scope_spans=[ScopeSpans(spans=list(spans))])]
    )


def _resource(service: str) -> ResourceMessage:
    return ResourceMessage(attributes=key_values({names.SERVICE_NAME: service}))
