"""Tells which audit records point to a span that a trace backend does not have."""

from collections.abc import Iterable

from telemetry.names import AUDIT_RECORD_ID
from tests.support.otlp_messages import ReceivedLog, ReceivedSpan, plain_attributes

SAMPLED = 1
"""The bit of a record's flags that says that its span was recorded."""


def unresolved(records: Iterable[ReceivedLog], spans: Iterable[ReceivedSpan]) -> list[str]:
    """Returns the ids of the records whose span is missing or does not carry the record's id; empty when all resolve.

    Records whose flags say that their span was not sampled promise nothing, and are not asked about.
    """
    ids_of = {(each.span.trace_id, each.span.span_id): _record_ids(each) for each in spans}
    missing: list[str] = []
    for _, record in records:
        record_id = str(plain_attributes(record.attributes)[AUDIT_RECORD_ID])
        if record.flags & SAMPLED and record_id not in ids_of.get((record.trace_id, record.span_id), ()):
            missing.append(record_id)
    return missing


def _record_ids(received: ReceivedSpan) -> list[str]:
    value = plain_attributes(received.span.attributes).get(AUDIT_RECORD_ID, [])
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
