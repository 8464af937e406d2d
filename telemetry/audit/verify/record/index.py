"""Step 3 of the verification: what a log record says beside its body agrees with it (docs/audit-format.md)."""

from collections.abc import Iterator
from typing import Final

from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.verify.findings import Code, Fault
from telemetry.audit.verify.read.found import Fields, Index
from telemetry.audit.verify.read.json_types import is_list, is_object
from telemetry.audit.verify.record.body import (
    EVENT_NAME,
    OBSERVED_TIMESTAMP,
    RESOURCE,
    SPAN_ID,
    TIMESTAMP,
    TRACE_FLAGS,
    TRACE_ID,
    Body,
    nanoseconds,
)
from telemetry.audit.verify.record.values import differing, shown

_INTEGRITY: Final = "audit.integrity."
_OWN: Final = ("audit.", "auditrace.")
_SEVERITIES: Final = {"success": 9, "failure": 13, "unknown": 13}
_SEVERITY_ERROR: Final = 17

W3C_FLAGS: Final = 0xFF
"""The bits of a log record's flags that are those of the span."""


def index_faults(body: Body, index: Index) -> Iterator[Fault]:
    """Yield where a log record disagrees with its body; a field that the log record does not have is no disagreement.

    Attributes are compared one by one as soon as there is any, and so is the resource: an index that lost some of them
    is an altered one, an index that never had any is none.
    """
    if index.attributes:
        yield from _attribute_faults(body, index.attributes)
    yield from _field_faults(body, index)
    resource = body.members.get(RESOURCE)
    if index.resource and is_object(resource):
        for key, value in resource.items():
            if not is_same(index.resource.get(key), value):
                yield _differs("resource_differs", f"{key} of the resource", index.resource.get(key), value)


def is_same(one: object, other: object) -> bool:
    """Tell whether two values are equal and of one type; `True` is not 1."""
    if is_object(one) and is_object(other):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if is_list(one) and is_list(other):
        return len(one) == len(other) and all(is_same(*pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def severity_of(outcome: object, result: object) -> int | None:
    """Return the severity number of a record's outcome and result, None when they have none."""
    return _SEVERITY_ERROR if result == "error" else _SEVERITIES.get(str(outcome))


def _attribute_faults(body: Body, attributes: Fields) -> Iterator[Fault]:
    for key, value in body.attributes.items():
        if key not in attributes:
            yield Fault("index_differs", f"attribute {key} is not in the log record, {shown(value)} in the body")
        elif not is_same(attributes[key], value):
            yield _differs("index_differs", f"attribute {key}", attributes[key], value)
    # Collectors may add attributes of their own; a name of this format that the body does not have was made up.
    for key in attributes.keys() - body.attributes.keys():
        if (key.startswith(_OWN) and not key.startswith(_INTEGRITY)) or key in names.BODY_ATTRIBUTES:
            detail = f"attribute {key} is {shown(attributes[key])} in the log record, not in the body"
            yield Fault("index_differs", detail)
    stated = attributes.get(names.AUDIT_INTEGRITY_HASH)
    if stated != body.digest.hex():
        detail = f"{names.AUDIT_INTEGRITY_HASH} is {shown(stated)}, the body's hash {body.digest.hex()}"
        yield Fault("hash_attribute", detail)


def _field_faults(body: Body, index: Index) -> Iterator[Fault]:
    members = body.members
    event_name = members.get(EVENT_NAME)
    if index.event_name and index.event_name != event_name:
        yield _differs("event_name_differs", "the event name", index.event_name, event_name)
    # OTLP JSON writes ids in hex of either case.
    for what, stated, held in (
        ("the trace id", index.trace_id, members.get(TRACE_ID)),
        ("the span id", index.span_id, members.get(SPAN_ID)),
    ):
        if stated and stated.lower() != str(held).lower():
            yield _differs("trace_differs", what, stated, held)
    if index.flags is not None and index.flags & W3C_FLAGS != members.get(TRACE_FLAGS):
        yield _differs("trace_differs", "flags", index.flags & W3C_FLAGS, members.get(TRACE_FLAGS))
    for what, stated_ns, timestamp in (
        ("the time", index.time_unix_nano, members.get(TIMESTAMP)),
        ("the observed time", index.observed_time_unix_nano, members.get(OBSERVED_TIMESTAMP)),
    ):
        if stated_ns and stated_ns != nanoseconds(timestamp):
            yield _differs("index_differs", what, _time(stated_ns), timestamp)
    severity = severity_of(body.attributes.get(names.AUDIT_OUTCOME), body.attributes.get(names.AUDITRACE_RESULT))
    if index.severity_number and index.severity_number != severity:
        yield _differs("index_differs", "the severity", index.severity_number, severity)


def _differs(code: Code, what: str, stated: object, held: object) -> Fault:
    in_record, in_body = differing(stated, held)
    return Fault(code, f"{what} is {in_record} in the log record, {in_body} in the body")


def _time(nanoseconds_since_1970: int) -> object:
    """Return a time as a body has it; where there is no such time, the number."""
    try:
        return rfc3339_nanos(nanoseconds_since_1970)
    except (OverflowError, ValueError):
        return nanoseconds_since_1970
