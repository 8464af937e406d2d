"""Compares the attributes of a log record with those of its body as texts, without decoding them (docs/adr/0030).

The attributes of the body are written as OTLP JSON, as collectors write what the service sends: in canonical order,
without white space. If the log record has the same text, `index.py` finds nothing wrong with its attributes:

1. *Names and types* in the text are those of the attributes that the body has, and of the hash. An attribute whose type
   has no text here is not compared.
2. *Values* are those of the body, as they are. None of them needs an escape: a canonical body has a backslash for each
   character that does, and has none outside of its changes. Integers are in decimal.
3. *Changes* may come in another order and with escapes. What the log record has in their place is decoded as `index.py`
   gets it, and its canonical text is compared.
4. Equal texts decode to equal attributes, and the text has all of the body's attributes and no others.

A text that differs says nothing.
"""

import functools
from collections.abc import Callable
from operator import attrgetter, is_not
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET
from msgspec.structs import astuple

from telemetry import names
from telemetry.audit.verify.read.otlp_json import value_of

# No JSON text holds a control character as it is: this one stands for the changes.
_CUT: Final = "\x00"
_CUT_BYTES: Final = _CUT.encode()
_GAP: Final = "%s"
_VALUES: Final = {"string": f'{{"stringValue":"{_GAP}"}}', "int": f'{{"intValue":"{_GAP}"}}', "changes": _CUT}
_SHORT_BYTES: Final = 1024
_SORTED: Final = msgspec.json.Encoder(order="sorted")

KEYS: Final = sorted(key for key, kind in names.BODY_ATTRIBUTES.items() if kind != "tips")
"""The attributes that are compared, in canonical order: all but those of checkpoints alone."""
_ABSENT: Final = (UNSET,) * len(KEYS)


def field_of(key: str) -> str:
    """Return the name of the field that holds an attribute."""
    return key.replace(".", "_")


class _Shape(NamedTuple):
    """The text of all records that have the same attributes, with gaps for their values, changes aside."""

    text: str
    values_of: Callable[[Any], tuple[object, ...]]


def is_text_of(attributes: Any, body: bytes, record_hash: str, encoded: bytes) -> bool:
    """Tell whether a text is the OTLP JSON of a body's attributes and hash; False says nothing.

    Args:
        attributes: of the body, with a field for each of `KEYS` in their order, `UNSET` where it has none.
        body: the canonical text of the body.
        record_hash: its hash.
        encoded: the attributes of the log record.
    """
    shape = _shape(bytes(map(is_not, astuple(attributes), _ABSENT)))
    if shape is None:
        return False
    changes = attributes.auditrace_changes
    canonical = b"" if changes is UNSET else _SORTED.encode(changes)
    if b"\\" in body and body.count(b"\\") != canonical.count(b"\\"):
        return False
    text = (shape.text % (*shape.values_of(attributes), record_hash)).encode()
    if not canonical:
        return encoded == text
    before, _, behind = text.partition(_CUT_BYTES)
    between = encoded[len(before) : len(encoded) - len(behind)]
    return encoded.startswith(before) and encoded.endswith(behind) and _is_value_of(between, canonical)


@functools.lru_cache(maxsize=256)
def _shape(present: bytes) -> _Shape | None:
    """Return the shape of records that have some of `KEYS`; None if one of them has no text."""
    keys = [key for key, is_there in zip(KEYS, present, strict=True) if is_there]
    kinds = [names.BODY_ATTRIBUTES[key] for key in keys]
    if not _VALUES.keys() >= set(kinds):
        return None
    pairs = [f'{{"key":"{key}","value":{_VALUES[kind]}}}' for key, kind in zip(keys, kinds, strict=True)]
    pairs.append(f'{{"key":"{names.AUDIT_INTEGRITY_HASH}","value":{_VALUES["string"]}}}')
    gaps = (field_of(key) for key, kind in zip(keys, kinds, strict=True) if kind != "changes")
    return _Shape(f"[{','.join(pairs)}]", attrgetter(*gaps))


def _is_value_of(encoded: bytes, changes: bytes) -> bool:
    """Tell whether an OTLP value says what the canonical text of changes says."""
    return (_is_known_value_of if len(encoded) < _SHORT_BYTES else _is_any_value_of)(encoded, changes)


def _is_any_value_of(encoded: bytes, changes: bytes) -> bool:
    try:
        return _SORTED.encode(value_of(encoded)) == changes
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False


# Most changes are from one status to the next.
_is_known_value_of = functools.lru_cache(maxsize=1024)(_is_any_value_of)
