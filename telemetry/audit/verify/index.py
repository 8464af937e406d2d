"""Step 3 of the verification: what a log record says beside its body agrees with it (docs/audit-format.md)."""

from collections.abc import Iterator
from typing import Final

from telemetry import names
from telemetry.audit.verify.body import (
    EVENT_NAME,
    OBSERVED_TIMESTAMP,
    RESOURCE,
    SPAN_ID,
    TIMESTAMP,
    TRACE_FLAGS,
    TRACE_ID,
    Body,
    is_list,
    is_object,
    nanoseconds,
)
from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.found import Fields, Index

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
                yield Fault("resource_differs", f"{key} of the log record's resource is {index.resource.get(key)}")


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
            yield Fault("index_differs", f"attribute {key} is not there")
        elif not is_same(attributes[key], value):
            yield Fault("index_differs", f"attribute {key} is {attributes[key]}")
    # Collectors may add attributes of their own; a name of this format that the body does not have was made up.
    for key in attributes.keys() - body.attributes.keys():
        if (key.startswith(_OWN) and not key.startswith(_INTEGRITY)) or key in names.BODY_ATTRIBUTES:
            yield Fault("index_differs", f"attribute {key} is not in the body")
    stated = attributes.get(names.AUDIT_INTEGRITY_HASH)
    if stated != body.digest.hex():
        yield Fault("hash_attribute", f"{names.AUDIT_INTEGRITY_HASH} is {stated}, the body's hash {body.digest.hex()}")


def _field_faults(body: Body, index: Index) -> Iterator[Fault]:
    members = body.members
    if index.event_name and index.event_name != members.get(EVENT_NAME):
        yield Fault("event_name_differs", f"the log record's event name is {index.event_name}")
    # OTLP JSON writes ids in hex of either case.
    if index.trace_id and index.trace_id.lower() != str(members.get(TRACE_ID)).lower():
        yield Fault("trace_differs", f"the log record's trace id is {index.trace_id}")
    if index.span_id and index.span_id.lower() != str(members.get(SPAN_ID)).lower():
        yield Fault("trace_differs", f"the log record's span id is {index.span_id}")
    if index.flags is not None and index.flags & W3C_FLAGS != members.get(TRACE_FLAGS):
        yield Fault("trace_differs", f"the log record's flags are {index.flags}")
    if index.time_unix_nano and index.time_unix_nano != nanoseconds(members.get(TIMESTAMP)):
        yield Fault("index_differs", f"the log record's time is {index.time_unix_nano}")
    observed = nanoseconds(members.get(OBSERVED_TIMESTAMP))
    if index.observed_time_unix_nano and index.observed_time_unix_nano != observed:
        yield Fault("index_differs", f"the log record's observed time is {index.observed_time_unix_nano}")
    severity = severity_of(body.attributes.get(names.AUDIT_OUTCOME), body.attributes.get(names.AUDITRACE_RESULT))
    if index.severity_number and index.severity_number != severity:
        yield Fault("index_differs", f"the log record's severity is {index.severity_number}, not {severity}")
