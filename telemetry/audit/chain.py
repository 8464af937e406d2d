"""The hash chain of one stream: the parts that sealing adds to a record (docs/audit-format.md, sections 1 and 4)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from telemetry import names
from telemetry.audit.canonical import Value, canonical_bytes, sha256_hex
from telemetry.audit.record import SpanRef

RESOURCE_MEMBERS: Final = (
    names.SERVICE_NAME,
    names.SERVICE_NAMESPACE,
    names.SERVICE_INSTANCE_ID,
    names.SERVICE_VERSION,
    names.DEPLOYMENT_ENVIRONMENT_NAME,
)


class Tip(msgspec.Struct, frozen=True):
    """The last record of a stream; a stream without records has number 0 and empty texts."""

    stream_id: str
    number: int = 0
    hash: str = ""
    record_id: str = ""
    observed_ns: int = 0


def rfc3339_nanos(time_ns: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 UTC with exactly nine fraction digits.

    Example:
        >>> rfc3339_nanos(1_767_323_045_678_901_234)
        '2026-01-02T03:04:05.678901234Z'
    """
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def sequence_attributes(tip: Tip) -> dict[str, Value]:
    """Return the sequence attributes of the record after `tip`; a first record has no attributes of a previous one."""
    attributes: dict[str, Value] = {
        names.AUDIT_SEQUENCE_STREAM_ID: tip.stream_id,
        names.AUDIT_SEQUENCE_NUMBER: tip.number + 1,
    }
    if tip.number:
        attributes[names.AUDIT_SEQUENCE_PREV_HASH] = tip.hash
        attributes[names.AUDIT_SEQUENCE_PREV_RECORD_ID] = tip.record_id
    return attributes


def body_bytes(
    *,
    event_name: str,
    timestamp_ns: int,
    observed_ns: int,
    span: SpanRef,
    resource: Mapping[str, Value],
    attributes: Mapping[str, Value],
) -> bytes:
    """Return the canonical body of a record whose attributes are complete.

    Raises:
        CanonicalFormError: a body cannot hold one of the values.
    """
    return canonical_bytes(
        {
            "timestamp": rfc3339_nanos(timestamp_ns),
            "observed_timestamp": rfc3339_nanos(observed_ns),
            "event_name": event_name,
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "trace_flags": span.trace_flags,
            "resource": {key: resource[key] for key in RESOURCE_MEMBERS if key in resource},
            "attributes": attributes,
        }
    )


def next_tip(tip: Tip, record_id: str, body: bytes, observed_ns: int) -> Tip:
    """Return the tip of the stream after the record with this body follows `tip`."""
    return Tip(tip.stream_id, tip.number + 1, sha256_hex(body), record_id, observed_ns)
