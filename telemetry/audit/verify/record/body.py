"""Step 2 of the verification: a body is canonical and has the form of docs/audit-format.md, sections 1 and 2."""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard, cast

import msgspec

from telemetry import names
from telemetry.audit import checkpoint
from telemetry.audit.canonical import MAX_INTEGER, Value, canonical_bytes
from telemetry.audit.verify.findings import Code, Fault
from telemetry.audit.verify.read.json_types import is_list, is_object
from telemetry.audit.verify.record.rotation import rotation_of
from telemetry.errors import CanonicalFormError

TIMESTAMP: Final = "timestamp"
OBSERVED_TIMESTAMP: Final = "observed_timestamp"
EVENT_NAME: Final = "event_name"
TRACE_ID: Final = "trace_id"
SPAN_ID: Final = "span_id"
TRACE_FLAGS: Final = "trace_flags"
RESOURCE: Final = "resource"
ATTRIBUTES: Final = "attributes"
FIRST_VERSION: Final = "1.0.0"
"""The format version whose records lack `names.ALWAYS_BEYOND_1_0_0`."""

OUTCOMES: Final[Mapping[object, str]] = {
    "success": "success",
    "noop": "success",
    "denied": "failure",
    "rejected": "failure",
    "error": "failure",
    "unknown": "unknown",
}

_MEMBERS: Final[Mapping[str, type]] = {
    TIMESTAMP: str,
    OBSERVED_TIMESTAMP: str,
    EVENT_NAME: str,
    TRACE_ID: str,
    SPAN_ID: str,
    TRACE_FLAGS: int,
    RESOURCE: dict,
    ATTRIBUTES: dict,
}
_TO_THE_SECOND: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.")
_TIMESTAMP_LENGTH: Final = len("2026-01-02T03:04:05.678901234Z")
_FRACTION_AT: Final = len("2026-01-02T03:04:05.")
_ID_FORMS: Final[Mapping[str, tuple[Code, re.Pattern[str]]]] = {
    TRACE_ID: ("trace_id_form", re.compile(r"(?!0{32})[0-9a-f]{32}")),
    SPAN_ID: ("span_id_form", re.compile(r"(?!0{16})[0-9a-f]{16}")),
}
# Values that every event keeps to. Those of the other enumerated attributes bind the catalogue's events only: other
# services bring target types and sources of their own, and the catalogue's names are reserved.
_CLOSED: Final = frozenset({names.AUDIT_ACTOR_TYPE, names.AUDIT_OUTCOME, names.AUDITRACE_RESULT})
_MAX_FLAGS: Final = 0xFF
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


class Body(msgspec.Struct, frozen=True):
    """A decoded body; attributes and members are what it says, whether or not they have their form."""

    digest: bytes
    members: Mapping[str, object]
    attributes: Mapping[str, object]
    checkpoint: checkpoint.Checkpoint | None

    @property
    def stream_id(self) -> str | None:
        """The stream, None when the body names none."""
        return _text(self.attributes.get(names.AUDIT_SEQUENCE_STREAM_ID))

    @property
    def number(self) -> int | None:
        """The number in the stream, None when the body has none from 1."""
        number = self.attributes.get(names.AUDIT_SEQUENCE_NUMBER)
        return number if _is_number(number) else None

    @property
    def record_id(self) -> str | None:
        """The record id, None when the body has none."""
        return _text(self.attributes.get(names.AUDIT_RECORD_ID))


def read_body(text: str) -> tuple[Body | None, list[Fault]]:
    """Decode a body and check its form; None when it is not the text of one JSON object."""
    try:
        encoded = text.encode()
        members: object = _DECODER.decode(encoded)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return None, [Fault("body_not_json", str(error))]
    if not is_object(members):
        return None, [Fault("body_not_json", "the body is not an object")]
    attributes = members.get(ATTRIBUTES)
    attributes = attributes if is_object(attributes) else {}
    stated = _checkpoint(attributes) if members.get(EVENT_NAME) == names.EVENT_AUDIT_CHECKPOINT else None
    body = Body(hashlib.sha256(encoded).digest(), members, attributes, stated)
    faults = [
        *_canonical_faults(encoded, members),
        *_member_faults(members),
        *_attribute_faults(body),
        *_pair_faults(attributes),
    ]
    return body, faults


def nanoseconds(timestamp: object) -> int | None:
    """Return a body's timestamp as nanoseconds since 1970, None when it does not have its form."""
    if not isinstance(timestamp, str) or len(timestamp) != _TIMESTAMP_LENGTH or timestamp[-1] != "Z":
        return None
    seconds, fraction = _seconds(timestamp[:_FRACTION_AT]), timestamp[_FRACTION_AT:-1]
    if seconds is None or not (fraction.isascii() and fraction.isdigit()):
        return None
    return seconds * 1_000_000_000 + int(fraction)


@functools.lru_cache(maxsize=1024)
def _seconds(to_the_second: str) -> int | None:
    if _TO_THE_SECOND.fullmatch(to_the_second) is None:
        return None
    try:
        moment = datetime.fromisoformat(to_the_second[:-1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    since = moment - _EPOCH
    return since.days * 86_400 + since.seconds


def _checkpoint(attributes: Mapping[str, object]) -> checkpoint.Checkpoint | None:
    stated = checkpoint.parse(attributes)
    if stated is None:
        return None
    integers = [stated.number, stated.streams, stated.records, *(tip.number for tip in stated.tips)]
    return stated if max(integers) <= MAX_INTEGER and all(tip.first <= tip.number + 1 for tip in stated.tips) else None


def _canonical_faults(encoded: bytes, members: dict[str, object]) -> Iterator[Fault]:
    # The encoder writes each member once, so that this also catches a member that occurs twice.
    try:
        if canonical_bytes(cast("Mapping[str, Value]", members)) != encoded:
            yield Fault("body_not_canonical", "the body is not the RFC 8785 text of what it says")
    except (CanonicalFormError, RecursionError) as error:
        yield Fault("body_not_canonical", str(error))


def _member_faults(members: Mapping[str, object]) -> Iterator[Fault]:
    for member, kind in _MEMBERS.items():
        if type(members.get(member)) is not kind:
            yield Fault("member_missing", f"{member} is not there as {kind.__name__}")
    for member in members.keys() - _MEMBERS.keys():
        yield Fault("member_missing", f"{member} is not a member of the format")
    flags = members.get(TRACE_FLAGS)
    if isinstance(flags, int) and not 0 <= flags <= _MAX_FLAGS:
        yield Fault("member_missing", f"trace_flags is {flags}, not 0 to {_MAX_FLAGS}")
    for member in (TIMESTAMP, OBSERVED_TIMESTAMP):
        if isinstance(members.get(member), str) and nanoseconds(members[member]) is None:
            yield Fault("timestamp_form", f"{member} is {members[member]}")
    for member, (code, form) in _ID_FORMS.items():
        value = members.get(member)
        if isinstance(value, str) and form.fullmatch(value) is None:
            yield Fault(code, f"{member} is {value}")


def _attribute_faults(body: Body) -> Iterator[Fault]:
    attributes = body.attributes
    for key in _always(attributes) - attributes.keys():
        yield Fault("attribute_missing", f"{key} is not there")
    for key, value in attributes.items():
        if not _has_kind(names.BODY_ATTRIBUTES.get(key, ""), value):
            yield Fault("attribute_missing", f"{key} does not have its type")
    event_name = body.members.get(EVENT_NAME)
    is_catalogued = isinstance(event_name, str) and event_name in names.ACTIONS
    for key in names.ATTRIBUTE_VALUES.keys() & attributes.keys():
        value = attributes[key]
        if (is_catalogued or key in _CLOSED) and isinstance(value, str) and value not in names.ATTRIBUTE_VALUES[key]:
            yield Fault("attribute_missing", f"{key} does not have one of its values: {value}")
    if isinstance(attributes.get(names.AUDIT_SEQUENCE_NUMBER), int) and body.number is None:
        yield Fault("attribute_missing", f"{names.AUDIT_SEQUENCE_NUMBER} does not count from 1")
    if body.checkpoint is None and body.members.get(EVENT_NAME) == names.EVENT_AUDIT_CHECKPOINT:
        yield Fault("attribute_missing", "the attributes of a checkpoint do not have their form")
    if body.members.get(EVENT_NAME) == names.EVENT_AUDIT_KEY_ROTATE and rotation_of(attributes) is None:
        yield Fault("attribute_missing", "the changes of a rotation do not have their form")


def _always(attributes: Mapping[str, object]) -> frozenset[str]:
    """Return the attributes that a record of this format version has."""
    is_first = attributes.get(names.AUDIT_SCHEMA_VERSION) == FIRST_VERSION
    return names.ALWAYS if is_first else names.ALWAYS | names.ALWAYS_BEYOND_1_0_0


def _pair_faults(attributes: Mapping[str, object]) -> Iterator[Fault]:
    result, outcome = attributes.get(names.AUDITRACE_RESULT), attributes.get(names.AUDIT_OUTCOME)
    if isinstance(result, str) and isinstance(outcome, str) and OUTCOMES.get(result, outcome) != outcome:
        yield Fault("outcome_pair", f"result {result} does not go with outcome {outcome}")
    record_id, uid = attributes.get(names.AUDIT_RECORD_ID), attributes.get(names.LOG_RECORD_UID)
    if record_id is not None and uid is not None and record_id != uid:
        yield Fault("uid_differs", f"{names.LOG_RECORD_UID} is {uid}")


def _has_kind(kind: str, value: object) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "string[]":
            return is_list(value) and all(isinstance(member, str) for member in value)
        case "changes":
            return is_object(value) and all(is_object(one) and one.keys() <= {"from", "to"} for one in value.values())
        case "tips":
            return is_list(value)
        case _:
            return _is_scalar(value) or (is_list(value) and all(_is_scalar(member) for member in value))


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INTEGER


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | bool)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
