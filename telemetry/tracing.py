"""The spans that audit records point to: starts them, marks them with record ids, and links them over the queue.

Source: OpenTelemetry semantic conventions, messaging spans; W3C Trace Context.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.audit.record import AuditRecord, SpanRef
from telemetry.propagation import remote_context, remote_span_context, traceparent

JOB_ENQUEUE: Final = "job enqueue"
JOB_RUN: Final = "job run"
JOB_RECLAIM: Final = "job reclaim"


class AuditedSpan:
    """A span in which audited actions happen."""

    def __init__(self, span: Span) -> None:
        self.otel_span = span
        self._record_ids: list[str] = []
        context = span.get_span_context()
        # A record keeps only the flag that says whether the trace is sampled; the SDK sets other flags too.
        sampled = int(context.trace_flags) & TraceFlags.SAMPLED
        self.ref = SpanRef(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled)
        self._flags = int(context.trace_flags)
        self.tracestate = context.trace_state.to_header() or None

    @property
    def traceparent(self) -> str:
        """The W3C `traceparent` that continues this span."""
        return traceparent(self.ref.trace_id, self.ref.span_id, self._flags)

    def mark(self, record: AuditRecord) -> None:
        """Point to a committed record. A reader finds the record from the span, and the collector keeps the trace."""
        self._record_ids.append(record.record_id)
        self.otel_span.set_attribute(names.AUDIT_RECORD_ID, list(self._record_ids))
        self.otel_span.set_attribute(names.AUDIT_ACTION, str(record.attributes[names.AUDIT_ACTION]))
        self.otel_span.set_attribute(names.AUDIT_OUTCOME, record.result.outcome)
        self.otel_span.set_attribute(names.AUDIT_TARGET_ID, str(record.attributes[names.AUDIT_TARGET_ID]))
        self.otel_span.set_attribute(names.AUDIT_RECORDED, True)

    def link(self, linked: str) -> None:
        """Link to the span of a `traceparent` that was not known when this one started."""
        for link in _links([linked]):
            self.otel_span.add_link(link.context)

    def describe(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes that were not known when the span started."""
        self.otel_span.set_attributes(attributes)

    def end(self, error_type: str | None = None) -> None:
        """End the span; with an error type its status is ERROR."""
        if error_type is not None:
            self.otel_span.set_attribute(names.ERROR_TYPE, error_type)
            self.otel_span.set_status(Status(StatusCode.ERROR))
        self.otel_span.end()


class Tracing:
    """Starts the spans of the service."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def current(self) -> AuditedSpan:
        """Return the span that is current on this thread or task."""
        return AuditedSpan(get_current_span())

    def root(self, name: str, *, links: Sequence[str] = ()) -> AuditedSpan:
        """Start a new trace, linked to the spans of these `traceparent`s."""
        span = self._tracer.start_span(name, context=Context(), kind=SpanKind.INTERNAL, links=_links(links))
        return AuditedSpan(span)

    def enqueue(self, parent: AuditedSpan, job_id: str, template: str, *, links: Sequence[str] = ()) -> AuditedSpan:
        """Start the producer span of a job that is put on the queue."""
        span = self._tracer.start_span(
            JOB_ENQUEUE,
            context=set_span_in_context(parent.otel_span),
            kind=SpanKind.PRODUCER,
            links=_links(links),
            attributes=_messaging("enqueue", "send", job_id, template),
        )
        return AuditedSpan(span)

    def run(
        self, producer: str, tracestate: str | None, job_id: str, template: str, links: Sequence[str]
    ) -> AuditedSpan:
        """Start the consumer span of a run; the producer's span is its parent and its first link."""
        span = self._tracer.start_span(
            JOB_RUN,
            context=remote_context(producer, tracestate),
            kind=SpanKind.CONSUMER,
            links=_links([producer, *links]),
            attributes=_messaging("run", "process", job_id, template),
        )
        return AuditedSpan(span)


def _links(traceparents: Sequence[str]) -> list[Link]:
    contexts = [remote_span_context(text) for text in traceparents]
    return [Link(context) for context in contexts if context is not None]


def _messaging(name: str, kind: str, job_id: str, template: str) -> dict[str, AttributeValue]:
    return {
        names.MESSAGING_SYSTEM: "auditrace",
        names.MESSAGING_DESTINATION_NAME: "jobs",
        names.MESSAGING_OPERATION_NAME: name,
        names.MESSAGING_OPERATION_TYPE: kind,
        names.MESSAGING_MESSAGE_ID: job_id,
        names.AUDITRACE_JOB_ID: job_id,
        names.AUDITRACE_JOB_TEMPLATE: template,
    }
