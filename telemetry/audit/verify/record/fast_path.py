"""The fast path through steps 2 and 3: shows at once that a record is as it should be (docs/adr/0030).

Almost all records are. It never says why one is not: where it shows nothing, `body.py` and `index.py` look at the
record piece by piece. They find nothing wrong with a record that it takes, for these reasons:

1. *Form.* The body decodes into a struct that has the members and attributes of the format and no others, each with its
   type, range and values; those that are always there must be. Checkpoints, rotations and attributes that this
   version does not know are not taken.
2. *Canonical.* The fields of the struct stand in canonical order, and what it holds gives the same bytes when it is
   encoded again. So there was no other spelling, no white space and no member that occurs twice. Names beyond the basic
   plane are not taken: the encoder orders by code points, RFC 8785 by UTF-16 code units.
3. *What types cannot say* is compared as in `body.py`: times, ids, the two record ids, the result and its outcome.
4. *Index.* Fields are equal to those of the body or say nothing. Attributes are equal as texts (`fast_index.py`); or
   the decoded ones, without the hash, have the same canonical text as the body's. Two canonical texts are equal only if
   all names, types and values are. Attributes that a collector added are not taken.
5. *What is kept* of the record is what the struct holds, and the hash of the bytes that were compared.
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
from telemetry.audit.verify.record.body import FIRST_VERSION, OUTCOMES, nanoseconds
from telemetry.audit.verify.record.fast_index import KEYS, field_of, is_text_of
from telemetry.audit.verify.record.index import W3C_FLAGS, severity_of

_SafeInteger: TypeAlias = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_Scalar: TypeAlias = str | _SafeInteger | bool
_Value: TypeAlias = str | _SafeInteger | bool | list[_Scalar] | dict[str, _Scalar | list[_Scalar]]


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"before": "from", "after": "to"}):
    before: _Value | UnsetType = UNSET
    after: _Value | UnsetType = UNSET


_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "int": _SafeInteger,
    "boolean": bool,
    "string[]": list[str],
    "changes": dict[str, _Change],
}
_OWN_TYPES: Final[Mapping[str, Any]] = {
    **{key: Literal[tuple(sorted(values))] for key, values in names.ATTRIBUTE_VALUES.items()},
    names.AUDIT_SEQUENCE_NUMBER: Annotated[int, Meta(ge=1, le=MAX_INTEGER)],
}
_NOT_COVERED: Final = frozenset({names.EVENT_AUDIT_CHECKPOINT, names.EVENT_AUDIT_KEY_ROTATE})


def _definition(key: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind: Any = _OWN_TYPES.get(key, _TYPES[names.BODY_ATTRIBUTES[key]])
    return (field_of(key), kind) if key in names.ALWAYS else (field_of(key), kind | UnsetType, UNSET)


# Fields stand in the order of RFC 8785, in which they are encoded again.
_ATTRIBUTES: Final = msgspec.defstruct(
    "TypedAttributes",
    [_definition(key) for key in KEYS],
    rename={field_of(key): key for key in KEYS},
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
)
_BODY: Final = msgspec.defstruct(
    "TypedBody",
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
_IDS: Final = re.compile(r"(?!0{32})[0-9a-f]{32}(?!0{16})[0-9a-f]{16}")
_SPAN_ID_DIGITS: Final = 16
_BEYOND_BASIC_PLANE: Final = re.compile("[\U00010000-\U0010ffff]")
_STRING: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(:?)')
_RANKING: Final[Callable[[Any], tuple[str, str]]] = attrgetter(
    *map(field_of, (names.AUDIT_OUTCOME, names.AUDITRACE_RESULT))
)
_SINCE: Final[Callable[[Any], tuple[Any, ...]]] = attrgetter(
    *map(field_of, (names.AUDIT_SCHEMA_VERSION, *sorted(names.ALWAYS_BEYOND_1_0_0)))
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


class FastRecord(msgspec.Struct, frozen=True, gc=False):
    """A record in whose body step 2 finds nothing wrong; `body` has its members, with their types."""

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
        """Tell whether step 3 would find nothing wrong with an index; False says nothing."""
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
            if is_text_of(self.body.attributes, self.encoded, self.hash, attributes.encoded):
                return True
            attributes = attributes.decoded()
        if not attributes:
            return True
        # The canonical text of what the index says is that of what the body says.
        own = dict(attributes)
        return own.pop(names.AUDIT_INTEGRITY_HASH, None) == self.hash and self.encoded.startswith(
            _SORTED.encode(own), _ATTRIBUTES_AT
        )


def prove(text: str) -> FastRecord | None:
    """Return the record whose body is `text`, if step 2 would find nothing wrong with it; None says nothing."""
    try:
        encoded = text.encode()
        body = _DECODER.decode(encoded)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if _ENCODER.encode(body) != encoded or (not text.isascii() and _has_name_beyond_basic_plane(text)):
        return None
    version, *since = _SINCE(body.attributes)
    if version != FIRST_VERSION and UNSET in since:
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


def _has_name_beyond_basic_plane(text: str) -> bool:
    """Return whether the order of some names by code points may not be that by UTF-16 code units."""
    if _BEYOND_BASIC_PLANE.search(text) is None:
        return False
    return any(string[2] and _BEYOND_BASIC_PLANE.search(string[1]) for string in _STRING.finditer(text))
