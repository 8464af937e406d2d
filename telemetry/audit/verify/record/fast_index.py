"""Compares the attributes of a log record with those of a body as texts, without decoding them.

OTLP JSON as collectors write it has the attributes in the order in which they were sent, which is that of the canonical
body, without white space, or with a space behind each comma and colon. Where a text differs nothing is said: the
attributes may be the same all the same.
"""

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from telemetry import names
from telemetry.audit.verify.read.otlp_json import value_of

_MAX_EVENTS: Final = 256
_MAX_SHAPES: Final = 8
_PATIENCE: Final = 1_000
_SHORT_BYTES: Final = 1024
_GAP: Final = "%s"
# No JSON text holds a control character: this one stands for the changes.
_CUT: Final = b"\x00"
_HASH_DIGITS: Final = 64
_SORTED: Final = msgspec.json.Encoder(order="sorted")


def field_of(key: str) -> str:
    """Return the name of the field that holds an attribute."""
    return key.replace(".", "_")


class _Style(NamedTuple):
    """How JSON is written."""

    comma: str
    colon: str


_COMPACT, _SPACED = _Style(",", ":"), _Style(", ", ": ")
_COMPACT_START: Final = b'[{"key":"'
_SPACED_START: Final = b'[{"key": "'


class _Shape:
    """The index of all records whose bodies have the same attributes: its text, with gaps for their values."""

    def __init__(self, keys: Sequence[str], style: _Style) -> None:
        """Prepare for bodies with these attributes, in canonical order: texts, integers and changes."""
        self.keys = tuple(keys)
        pairs = [_otlp(key, style) for key in (*keys, names.AUDIT_INTEGRITY_HASH)]
        self._text = f"[{style.comma.join(pairs)}]"
        self._values_of: Callable[[Any], tuple[object, ...]] = attrgetter(
            *(field_of(key) for key in keys if key != names.AUDITRACE_CHANGES)
        )
        # How much longer the text is than the canonical one, whatever the values that stand in both.
        self._surplus = _fixed(self._text) + _HASH_DIGITS - _fixed(",".join(map(_canonical, keys)))

    def is_text_of(self, attributes: Any, text_bytes: int, changes: bytes, record_hash: str, encoded: bytes) -> bool:
        """Answer as `Shapes.is_text_of`."""
        values = self._values_of(attributes)
        if UNSET in values:
            return False
        text = (self._text % (*values, record_hash)).encode()
        # All of the shape's attributes are there. That the text has no other length rules out further ones, and
        # characters that JSON escapes, which are not escaped here.
        if len(text) != text_bytes - len(changes) + self._surplus:
            return False
        if not changes:
            return encoded == text
        before, _, behind = text.partition(_CUT)
        between = encoded[len(before) : len(encoded) - len(behind)]
        return encoded.startswith(before) and encoded.endswith(behind) and _is_value_of(between, changes)


class Shapes:
    """The shapes that records were seen to have, by their events and by the style of their lines."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Prepare for bodies with any of these attributes."""
        self._fields = [(key, field_of(key)) for key in keys]
        self._compact: dict[str, _OfEvent] = {}
        self._spaced: dict[str, _OfEvent] = {}

    def is_text_of(
        self, event_name: str, attributes: Any, text_bytes: int, changes: bytes, record_hash: str, encoded: bytes
    ) -> bool:
        """Tell whether a text is the OTLP JSON of the attributes that go with a body; False says nothing.

        Args:
            event_name: the event of the record.
            attributes: of its body, `UNSET` where it has none.
            text_bytes: the length of their canonical text, without braces.
            changes: the canonical text of those of them that are changes; empty if there are none.
            record_hash: the hash of the body.
            encoded: the attributes of the log record.
        """
        if encoded.startswith(_COMPACT_START):
            known, style = self._compact, _COMPACT
        elif encoded.startswith(_SPACED_START):
            known, style = self._spaced, _SPACED
        else:
            return False
        of_event = known.get(event_name)
        if of_event is None:
            if len(known) == _MAX_EVENTS:
                return False
            of_event = known[event_name] = _OfEvent(self._fields, style)
        return of_event.is_text_of(attributes, text_bytes, changes, record_hash, encoded)


class _OfEvent:
    """The shapes of one event and style."""

    def __init__(self, fields: Sequence[tuple[str, str]], style: _Style) -> None:
        self._fields = fields
        self._style = style
        self._shapes: list[_Shape] = []
        self._patience = _PATIENCE

    def is_text_of(self, attributes: Any, text_bytes: int, changes: bytes, record_hash: str, encoded: bytes) -> bool:
        if self._patience < 0:
            return False
        for shape in self._shapes:
            if shape.is_text_of(attributes, text_bytes, changes, record_hash, encoded):
                return True
        # Where texts never are the same, trying costs more than it saves.
        self._patience -= 1
        learned = self._new_shape(attributes)
        return learned is not None and learned.is_text_of(attributes, text_bytes, changes, record_hash, encoded)

    def _new_shape(self, attributes: Any) -> _Shape | None:
        """Return the shape of a record from now on; None when it is known, or too many are."""
        if len(self._shapes) == _MAX_SHAPES:
            return None
        keys = tuple(key for key, field in self._fields if getattr(attributes, field) is not UNSET)
        if any(shape.keys == keys for shape in self._shapes):
            return None
        self._shapes.append(_Shape(keys, self._style))
        return self._shapes[-1]


def _otlp(key: str, style: _Style) -> str:
    colon = style.colon
    kind = "intValue" if names.BODY_ATTRIBUTES.get(key) == "int" else "stringValue"
    value = _CUT.decode() if key == names.AUDITRACE_CHANGES else f'{{"{kind}"{colon}"{_GAP}"}}'
    return f'{{"key"{colon}"{key}"{style.comma}"value"{colon}{value}}}'


def _canonical(key: str) -> str:
    if key == names.AUDITRACE_CHANGES:
        return f'"{key}":'
    return f'"{key}":"{_GAP}"' if names.BODY_ATTRIBUTES[key] == "string" else f'"{key}":{_GAP}'


def _fixed(text: str) -> int:
    return len(text) - len(_GAP) * text.count(_GAP)


def _is_value_of(encoded: bytes, changes: bytes) -> bool:
    return (_is_known_value_of if len(encoded) < _SHORT_BYTES else _is_any_value_of)(encoded, changes)


def _is_any_value_of(encoded: bytes, changes: bytes) -> bool:
    """Tell whether an OTLP value says what the canonical text of changes says."""
    try:
        return _SORTED.encode(value_of(encoded)) == changes
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False


# Most changes are from one status to the next.
_is_known_value_of = functools.lru_cache(maxsize=1024)(_is_any_value_of)
