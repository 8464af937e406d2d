"""Compares the columns that the query API searches with the body; in Python, as no database's JSON takes every body."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from service.store.queries import Row
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos

_MEMBERS: Final = ("event_name", "trace_id", "span_id", "timestamp", "observed_timestamp")
_ATTRIBUTES: Final = (
    names.AUDIT_RECORD_ID,
    names.AUDIT_SEQUENCE_STREAM_ID,
    names.AUDIT_SEQUENCE_NUMBER,
    names.AUDITRACE_TENANT_ID,
    names.AUDIT_ACTOR_ID,
    names.AUDIT_ACTION,
    names.AUDIT_OUTCOME,
    names.AUDITRACE_RESULT,
    names.AUDIT_TARGET_TYPE,
    names.AUDIT_TARGET_ID,
    names.AUDITRACE_TARGET_VERSION,
    names.AUDITRACE_JOB_ID,
    names.AUDITRACE_REQUEST_ID,
)


def contradicting(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Yield the records with a column that contradicts the body.

    Args:
        rows: those of the statement `columns_of_records`: the body, then the columns in the order of the lists above.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for body, *columns in rows:
        event_name, trace_id, span_id, timestamp_ns, observed_ns, *attributes = columns
        times = (rfc3339_nanos(timestamp_ns), rfc3339_nanos(observed_ns))
        stored = [_shown(value) for value in (event_name, trace_id, span_id, *times, *attributes)]
        try:
            said = _said(decoder.decode(body))
        except (msgspec.MsgspecError, AttributeError) as error:
            yield f"record {attributes[0]}", f"its body does not say what it is: {error}"
            continue
        if stored != said:
            yield f"record {attributes[0]}", "a column beside its body says something else"


def _said(body: Mapping[str, Any]) -> list[object]:
    attributes = body.get("attributes", {})
    found = [body.get(member) for member in _MEMBERS] + [attributes.get(name) for name in _ATTRIBUTES]
    return [_shown(value) for value in found]


def _shown(value: object) -> object:
    # A body can hold NUL, but a text column of PostgreSQL cannot.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
