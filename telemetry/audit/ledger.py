"""Emits records through the OpenTelemetry Logs API: each is sealed into the open transaction, or an error is raised.

The provider has one processor and no limits, no sampler and no queue, so it seals every record at once.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, cast

import msgspec
from opentelemetry._logs import LogRecord, NoOpLogger, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from telemetry import names
from telemetry.audit import otlp
from telemetry.audit.canonical import Value
from telemetry.audit.chain import Tip, body_bytes, next_tip, sequence_attributes
from telemetry.audit.limits import fit
from telemetry.audit.record import AuditRecord, SpanRef
from telemetry.audit.signer import SIGNED_EVENTS, Signer
from telemetry.errors import NoTransactionError, RecordNotSealedError, TelemetrySettingsError

SCOPE_NAME: Final = "auditrace.audit"


class SealedRecord(msgspec.Struct, frozen=True):
    """A record with its place in a stream; `otlp` is the serialized LogRecord, which is delivered byte for byte.

    `signature` is the signature over the body, on records of the events that are signed.
    """

    tip: Tip
    event_name: str
    timestamp_ns: int
    span: SpanRef
    attributes: Mapping[str, Value]
    body: bytes
    otlp: bytes
    signature: str | None = None


class OpenLedger(Protocol):
    """The open transaction of a lane: the part of it that sealing needs."""

    @property
    def tip(self) -> Tip:
        """The last record of the lane's stream, including the records of this transaction."""
        ...

    def observe_ns(self) -> int:
        """Return the time of sealing; it is never before that of the previous record."""
        ...

    def append(self, sealed: SealedRecord) -> None:
        """Write the record; it is committed with the transaction or not at all."""
        ...


class _Emission:
    """One record on its way through the SDK: its ledger, the key for its signature, and the sealed result."""

    def __init__(self, ledger: OpenLedger, signer: Signer | None) -> None:
        self.ledger = ledger
        self.signer = signer
        self.sealed: SealedRecord | None = None

    def signature(self, event_name: str, body: bytes) -> str | None:
        """Return the signature over a body if the event is signed, else None."""
        if event_name not in SIGNED_EVENTS:
            return None
        if self.signer is None:
            raise RecordNotSealedError(f"a record of {event_name} must be signed, and no key was given")
        return self.signer.sign(body)


_EMISSION: ContextVar[_Emission] = ContextVar("auditrace_emission")


class LedgerProcessor(LogRecordProcessor):
    """Seals each emitted log record into the open transaction, and completes it in place; raises when none is open."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Complete the SDK's record (sequence, observed time, body, hash) and append it to the open ledger.

        Raises:
            NoTransactionError: no transaction is open on this thread; nothing was written.
        """
        emission = _EMISSION.get(None)
        if emission is None:
            raise NoTransactionError("an audit record was emitted outside a ledger transaction")
        ledger = emission.ledger
        record = log_record.log_record
        resource = _attributes(log_record.resource.attributes if log_record.resource else None)
        # Sorted, because backends show attributes in the order of the message.
        attributes = dict(sorted({**_attributes(record.attributes), **sequence_attributes(ledger.tip)}.items()))
        span = SpanRef(f"{record.trace_id:032x}", f"{record.span_id:016x}", int(record.trace_flags or 0))
        event_name, timestamp_ns, observed_ns = str(record.event_name), int(record.timestamp or 0), ledger.observe_ns()
        body = body_bytes(
            event_name=event_name,
            timestamp_ns=timestamp_ns,
            observed_ns=observed_ns,
            span=span,
            resource=resource,
            attributes=attributes,
        )
        tip = next_tip(ledger.tip, str(attributes[names.AUDIT_RECORD_ID]), body, observed_ns)
        index: dict[str, Value] = {**attributes, names.AUDIT_INTEGRITY_HASH: tip.hash}
        signature = emission.signature(event_name, body)
        if signature is not None:
            index[names.AUDIT_INTEGRITY_VALUE] = signature
        record.observed_timestamp = observed_ns
        record.body = body.decode()
        record.attributes = cast("Any", index)
        severity = record.severity_number.value if record.severity_number else 0
        otlp_bytes = otlp.log_record_bytes(
            event_name=event_name,
            timestamp_ns=timestamp_ns,
            observed_ns=observed_ns,
            severity=severity,
            span=span,
            body=record.body,
            attributes=index,
        )
        sealed = SealedRecord(tip, event_name, timestamp_ns, span, attributes, body, otlp_bytes, signature)
        ledger.append(sealed)
        emission.sealed = sealed

    def shutdown(self) -> None:
        """Do nothing: no record is waiting."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: each record is in its transaction when `emit` returns, so none is waiting."""
        del timeout_millis
        return True


class AuditLogger:
    """Emits audit records through the Logs API of a provider of its own."""

    def __init__(self, resource: Resource, version: str) -> None:
        """Set up the provider.

        Raises:
            TelemetrySettingsError: OTEL_SDK_DISABLED is set, which would silence the audit trail.
        """
        unlimited = LogRecordLimits(
            max_attributes=LogRecordLimits.UNSET,
            max_attribute_length=LogRecordLimits.UNSET,
            max_log_record_attributes=LogRecordLimits.UNSET,
            max_log_record_attribute_length=LogRecordLimits.UNSET,
        )
        self._resource, self._version = resource, version
        self.resource_bytes = otlp.resource_bytes(_attributes(resource.attributes))
        self.scope_bytes = otlp.scope_bytes(SCOPE_NAME, version)
        self._provider = LoggerProvider(resource=resource, shutdown_on_exit=False, log_record_limits=unlimited)
        self._provider.add_log_record_processor(LedgerProcessor())
        self._logger = self._provider.get_logger(SCOPE_NAME, version)
        if isinstance(self._logger, NoOpLogger):
            raise TelemetrySettingsError(
                "OTEL_SDK_DISABLED=true would silence the audit trail: unset it, and use OTEL_TRACES_EXPORTER=none, "
                "OTEL_METRICS_EXPORTER=none and OTEL_LOGS_EXPORTER=none to switch off ordinary telemetry"
            )

    def certified(self, fingerprint: str) -> "AuditLogger":
        """Return the logger whose resource names this key as the signing key; this logger if its resource does."""
        certificate = {
            names.AUDIT_INTEGRITY_ALGORITHM: "EdDSA",
            names.AUDIT_INTEGRITY_CERTIFICATE: fingerprint,
        }
        if self._resource.attributes.items() >= certificate.items():
            return self
        return AuditLogger(self._resource.merge(Resource(certificate)), self._version)

    def emit(self, record: AuditRecord, ledger: OpenLedger, signer: Signer | None = None) -> SealedRecord:
        """Seal `record` into `ledger` through the Logs API; the result is part of the transaction.

        Args:
            record: the record.
            ledger: the open transaction.
            signer: the key for an event that is signed.

        Raises:
            CanonicalFormError: a body cannot hold one of the values; nothing was written.
            RecordNotSealedError: the SDK dropped the record, or the key is missing; nothing was written.
        """
        emission = _Emission(ledger, signer)
        token = _EMISSION.set(emission)
        try:
            self._logger.emit(
                LogRecord(
                    timestamp=record.timestamp_ns,
                    context=_context(record.span),
                    severity_number=SeverityNumber(otlp.severity_number(record.result)),
                    attributes=cast("Any", dict(fit(record.attributes))),
                    event_name=record.event_name,
                )
            )
        finally:
            _EMISSION.reset(token)
        if emission.sealed is None:
            raise RecordNotSealedError(f"record {record.record_id} was emitted but not sealed")
        return emission.sealed


def _context(span: SpanRef) -> Context:
    flags = TraceFlags(span.trace_flags)
    context = SpanContext(int(span.trace_id, 16), int(span.span_id, 16), is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context))


def _attributes(attributes: object) -> dict[str, Value]:
    return dict(cast("Mapping[str, Value]", attributes or {}))
