"""Makes the records that a process writes about the ledger itself: of the service's own acts, and of an operator's."""

from collections.abc import Callable

import msgspec

from service.jobs.model import DEFAULT_TENANT
from service.records import AuditContext, Fact, record_of
from telemetry import names
from telemetry.audit.record import SERVICE_ISSUER, Actor, AuditRecord, Result, Source, SpanRef, Target
from telemetry.tracing import Tracing

SYSTEM = Actor("auditrace", "system", SERVICE_ISSUER)
LEDGER = Target("ledger", "auditrace")


def service_context(source: Source) -> AuditContext:
    """Return the context of what the service does by itself."""
    return AuditContext(actor=SYSTEM, tenant_id=DEFAULT_TENANT, source=source)


class LedgerRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Makes records, each with a trace of its own."""

    tracing: Tracing
    new_id: Callable[[], str]
    clock: Callable[[], int]
    service: AuditContext
    operator: AuditContext
    """The person at the command line; the service where there is none."""

    def of_service(self, event_name: str) -> AuditRecord:
        """Return the record of an act of the service, such as `audit.stream.open`."""
        return self._traced(event_name, self.service)

    def of_operator(self, event_name: str) -> AuditRecord:
        """Return the record of an act that a person asked this process for, such as `audit.restore`."""
        return self._traced(event_name, self.operator)

    def trial(self) -> AuditRecord:
        """Return a record that is never committed; so it has no real span."""
        span = SpanRef("0" * 31 + "1", "0" * 15 + "1", 0)
        return self._record(names.EVENT_AUDIT_STREAM_OPEN, self.service, span)

    def _traced(self, event_name: str, context: AuditContext) -> AuditRecord:
        span = self.tracing.root(event_name)
        record = self._record(event_name, context, span.ref)
        span.mark(record)
        span.end()
        return record

    def _record(self, event_name: str, context: AuditContext, span: SpanRef) -> AuditRecord:
        fact = Fact(event_name=event_name, target=LEDGER, result=Result.SUCCESS)
        return record_of(fact, context, span, self.new_id(), self.clock())
