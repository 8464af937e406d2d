"""The short way through steps 2 and 3: proves at once that a record is as it should be, as almost all are.

It never says why a record is not: `body.py` and `index.py` do, which go through it piece by piece and take what this
proof does not cover, such as checkpoints. A test holds the two together.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from telemetry import names
from telemetry.audit.canonical import MAX_INTEGER
from telemetry.audit.verify.read.found import Fields, Index
from telemetry.audit.verify.read.otlp_json import EncodedFields
from telemetry.audit.verify.record.body import OUTCOMES, nanoseconds
from telemetry.audit.verify.record.fast_index import Shapes, field_of
from telemetry.audit.verify.record.index import W3C_FLAGS, severity_of

_Integer: TypeAlias = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_Scalar: TypeAlias = str | _Integer | bool
_Value: TypeAlias = str | _Integer | bool | list[_Scalar] | dict[str, _Scalar | list[_Scalar]]


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"before": "from", "after": "to"}):
    before: _Value | UnsetType = UNSET
    after: _Value | UnsetType = UNSET


_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "int": _Integer,
    "boolean": bool,
    "string[]": list[str],
    "changes": dict[str, _Change],
}
_OWN_TYPES: Final[Mapping[str, Any]] = {
    **{key: Literal[tuple(sorted(values))] for key, values in names.ATTRIBUTE_VALUES.items()},
    names.AUDIT_SEQUENCE_NUMBER: Annotated[int, Meta(ge=1, le=MAX_INTEGER)],
}
_KEYS: Final = sorted(key for key, kind in names.BODY_ATTRIBUTES.items() if kind in _TYPES)
_NOT_COVERED: Final = frozenset({names.EVENT_AUDIT_CHECKPOINT, names.EVENT_AUDIT_KEY_ROTATE})


def _definition(key: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind: Any = _OWN_TYPES.get(key, _TYPES[names.BODY_ATTRIBUTES[key]])
    return (field_of(key), kind) if key in names.ALWAYS else (field_of(key), kind | UnsetType, UNSET)


# Fields stand in the order of RFC 8785, in which they are encoded again.
_ATTRIBUTES: Final = msgspec.defstruct(
    "Attributes",
    [_definition(key) for key in _KEYS],
    rename={field_of(key): key for key in _KEYS},
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_BODY: Final = msgspec.defstruct(
    "Body",
    [
        ("attributes", _ATTRIBUTES),
        ("event_name", str),
        ("observed_timestamp", str),
        ("resource", dict[str, str]),
        ("span_id", str),
        ("timestamp", str),
        ("trace_flags", Annotated[int, Meta(ge=0, le=W3C_FLAGS)]),
        ("trace_id", str),
    ],
    frozen=True,
    forbid_unknown_fields=True,
    gc=False,
)
_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_BODY)
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_ATTRIBUTES_AT: Final = len('{"attributes":')
_BEHIND_ATTRIBUTES: Final = b'},"event_name":"'
_IDS: Final = re.compile(r"(?!0{32})[0-9a-f]{32}(?!0{16})[0-9a-f]{16}")
_SPAN_ID_DIGITS: Final = 16
# A name with a character beyond the basic plane: the order of code points is not that of UTF-16 code units then.
_NAME_BEYOND_BASIC_PLANE: Final = re.compile(r'[\U00010000-\U0010ffff](?:[^"\\]|\\.)*":')
_RANKING: Final[Callable[[Any], tuple[str, str]]] = attrgetter(
    *map(field_of, (names.AUDIT_OUTCOME, names.AUDITRACE_RESULT))
)
_PLACE: Final[Callable[[Any], tuple[str, int, str, str, Any, Any, str, str]]] = attrgetter(
    *(
        field_of(key)
        for key in (
            names.AUDIT_SEQUENCE_STREAM_ID,
            names.AUDIT_SEQUENCE_NUMBER,
            names.AUDIT_RECORD_ID,
            names.LOG_RECORD_UID,
            names.AUDIT_SEQUENCE_PREV_HASH,
            names.AUDIT_SEQUENCE_PREV_RECORD_ID,
            names.AUDIT_OUTCOME,
            names.AUDITRACE_RESULT,
        )
    )
)

# Of this process; what it learns saves time and changes nothing.
_SHAPES: Final = Shapes(_KEYS)


class FastRecord(msgspec.Struct, frozen=True, gc=False):
    """A record whose body step 2 finds nothing wrong with; `body` has the members of one, with their types."""

    encoded: bytes
    body: Any
    digest: bytes
    hash: str
    stream_id: str
    number: int
    record_id: str
    prev_hash: str | None
    prev_record_id: str | None
    timestamp_ns: int
    observed_ns: int

    @property
    def event_name(self) -> str:
        """The event."""
        return str(self.body.event_name)

    def agrees_with(self, index: Index) -> bool:
        """Tell whether step 3 finds nothing wrong with an index; False also where this proof does not reach."""
        body = self.body
        return (
            self._has_attributes(index.attributes)
            and index.event_name in (body.event_name, "")
            and index.trace_id in (body.trace_id, "")
            and index.span_id in (body.span_id, "")
            and (index.flags is None or index.flags & W3C_FLAGS == body.trace_flags)
            and index.time_unix_nano in (self.timestamp_ns, 0)
            and index.observed_time_unix_nano in (self.observed_ns, 0)
            and index.severity_number in (severity_of(*_RANKING(body.attributes)), 0)
            and (not index.resource or body.resource.items() <= index.resource.items())
        )

    def _has_attributes(self, attributes: Fields) -> bool:
        if isinstance(attributes, EncodedFields):
            if self._is_text(attributes.encoded):
                return True
            attributes = attributes.decoded()
        if not attributes:
            return True
        # The canonical text of what the index says is that of what the body says.
        own = dict(attributes)
        return own.pop(names.AUDIT_INTEGRITY_HASH, None) == self.hash and self.encoded.startswith(
            _SORTED.encode(own), _ATTRIBUTES_AT
        )

    def _is_text(self, encoded: bytes) -> bool:
        changes = self.body.attributes.auditrace_changes
        return _SHAPES.is_text_of(
            self.body.event_name,
            self.body.attributes,
            self.encoded.rfind(_BEHIND_ATTRIBUTES) - _ATTRIBUTES_AT - 1,
            b"" if changes is UNSET else _ENCODER.encode(changes),
            self.hash,
            encoded,
        )


def prove(text: str) -> FastRecord | None:
    """Return the record whose body is `text`, if step 2 would find nothing wrong with it; None is no verdict."""
    try:
        encoded = text.encode()
        body = _DECODER.decode(encoded)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if _ENCODER.encode(body) != encoded or (not text.isascii() and _NAME_BEYOND_BASIC_PLANE.search(text)):
        return None
    stream_id, number, record_id, uid, prev_hash, prev_record_id, outcome, result = _PLACE(body.attributes)
    timestamp_ns, observed_ns = nanoseconds(body.timestamp), nanoseconds(body.observed_timestamp)
    if (
        timestamp_ns is None
        or observed_ns is None
        or not stream_id
        or not record_id
        or uid != record_id
        or OUTCOMES[result] != outcome
        or body.event_name in _NOT_COVERED
        or _IDS.fullmatch(body.trace_id + body.span_id) is None
        or len(body.span_id) != _SPAN_ID_DIGITS
    ):
        return None
    digest = hashlib.sha256(encoded)
    return FastRecord(
        encoded,
        body,
        digest.digest(),
        digest.hexdigest(),
        stream_id,
        number,
        record_id,
        None if prev_hash is UNSET else prev_hash,
        None if prev_record_id is UNSET else prev_record_id,
        timestamp_ns,
        observed_ns,
    )
