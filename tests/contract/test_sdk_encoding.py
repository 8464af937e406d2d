"""What is stored is what the OpenTelemetry SDK would have sent."""

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from telemetry import names
from telemetry.audit.checkpoint import is_signed
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.otlp import resource_logs_bytes
from telemetry.audit.signer import SIGNED_EVENTS, Signer
from telemetry.errors import NoTransactionError, TelemetrySettingsError
from tests.support.catalogue import every_event
from tests.support.ids import record_ids
from tests.support.ledger_maker import KEY
from tests.support.telemetry_maker import OneStream

RESOURCE = Resource(
    {names.SERVICE_NAME: "auditrace", names.SERVICE_INSTANCE_ID: "i-1", names.AUDIT_INTEGRITY_ALGORITHM: "EdDSA"}
)


class Witness(LogRecordProcessor):
    """Sees each log record as the SDK's own exporters would, after the ledger has sealed it."""

    def __init__(self) -> None:
        self.seen: list[ReadableLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.seen.append(
            ReadableLogRecord(log_record.log_record, log_record.resource, log_record.instrumentation_scope)
        )

    def shutdown(self) -> None:
        """Nothing to shut down."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def test_stored_bytes_decode_equal_to_what_the_stock_exporter_encodes_for_every_event(monkeypatch) -> None:
    """For each event of the catalogue the stored bytes are the stock encoder's message, whatever limits are set."""
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    log, witness, ledger = AuditLogger(RESOURCE, "0.1.0"), Witness(), OneStream()
    log._provider.add_log_record_processor(witness)
    ids = record_ids()
    for record in every_event(ids):
        log.emit(record, ledger, Signer(KEY))
    assert {record.event_name for record in ledger.sealed} == set(names.ACTIONS)
    for sealed, seen in zip(ledger.sealed, witness.seen, strict=True):
        stored = ExportLogsServiceRequest.FromString(
            resource_logs_bytes(log.resource_bytes, log.scope_bytes, [sealed.otlp])
        )
        assert stored == encode_logs([seen])


def test_a_signature_stands_in_the_index_of_signed_events_and_never_in_a_body() -> None:
    """Checkpoints and key rotations carry `audit.integrity.value` beside their body; no other record does."""
    log, ledger = AuditLogger(RESOURCE, "0.1.0"), OneStream()
    for record in every_event(record_ids()):
        log.emit(record, ledger, Signer(KEY))
    for sealed in ledger.sealed:
        attributes = {pair.key: pair.value.string_value for pair in LogRecordMessage.FromString(sealed.otlp).attributes}
        assert (names.AUDIT_INTEGRITY_VALUE in attributes) == (sealed.event_name in SIGNED_EVENTS)
        assert names.AUDIT_INTEGRITY_VALUE.encode() not in sealed.body
        if sealed.signature is not None:
            assert attributes[names.AUDIT_INTEGRITY_VALUE] == sealed.signature
            assert is_signed(sealed.body, sealed.signature, [KEY.public_key()])


def test_emission_outside_a_transaction_reaches_the_caller_as_an_error() -> None:
    """The Logs API does not swallow the refusal to record outside a transaction."""
    log = AuditLogger(RESOURCE, "0.1.0")
    with pytest.raises(NoTransactionError):
        log._logger.emit(LogRecord(event_name="job.create"))


def test_a_disabled_sdk_is_refused_instead_of_losing_records(monkeypatch) -> None:
    """OTEL_SDK_DISABLED would turn every emission into nothing, so the logger cannot be made."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.raises(TelemetrySettingsError, match="OTEL_SDK_DISABLED"):
        AuditLogger(RESOURCE, "0.1.0")
