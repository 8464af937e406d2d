"""The payload of a webhook: a record as listings of the API show it.

Without `delivery` and `links`, so that every attempt sends the same bytes.

Source: Standard Webhooks 1.0.0, "Payload structure".
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.ports import WebhookRecord
from telemetry.audit.body_view import view_body


class PayloadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record in a payload. `record_hash` is the SHA-256 of the UTF-8 bytes of `body`, the canonical text."""

    record_id: str
    stream_id: str
    sequence_number: int
    record_hash: str
    event_name: str
    timestamp: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]
    body: str


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """A payload: `type` is the name of the event, and `timestamp` is when it took place."""

    type: str
    timestamp: str
    data: PayloadRecord


def payload_of(record: WebhookRecord) -> bytes:
    """Return the JSON of a payload; the same record has the same bytes always."""
    body = view_body(record.body)
    return msgspec.json.encode(
        Payload(
            type=record.event_name,
            timestamp=body.timestamp,
            data=PayloadRecord(
                record_id=record.record_id,
                stream_id=record.stream_id,
                sequence_number=record.number,
                record_hash=record.record_hash,
                event_name=record.event_name,
                timestamp=body.timestamp,
                trace_id=body.trace_id,
                span_id=body.span_id,
                attributes=body.attributes,
                body=record.body,
            ),
        )
    )
