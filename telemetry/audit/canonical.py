"""Canonical JSON of a record body, so that equal records have equal bytes and equal hashes.

Source: RFC 8785 (JCS). The format has no floats, so the only numbers (RFC 8785, 3.2.2.3) are integers within the I-JSON
range. Keys are ordered by UTF-16 code units (3.2.3).
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import msgspec

from telemetry.errors import CanonicalFormError

Value: TypeAlias = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]

MAX_INTEGER = 2**53 - 1


def _plain(value: Mapping[str, Value]) -> dict[str, Value]:
    return dict(value)


# The hook gets only mappings that are not a dict: `_check` has refused all other types.
_FAST = msgspec.json.Encoder(order="sorted", enc_hook=_plain)


def canonical_bytes(value: Mapping[str, Value]) -> bytes:
    """Return the RFC 8785 text of `value`, as UTF-8.

    Raises:
        CanonicalFormError: `value` holds a float, a null, a lone surrogate or an integer outside ±(2^53-1).
    """
    has_plain_keys = _check(value)
    try:
        if has_plain_keys:
            return _FAST.encode(value)
        # msgspec orders keys by code point. RFC 8785 needs UTF-16 code units, which differ beyond the basic plane.
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise CanonicalFormError("a text holds a lone surrogate") from error


def sha256_hex(body: bytes) -> str:
    """Return the record hash of a body: SHA-256 over its bytes, 64 lower-case hex digits."""
    return hashlib.sha256(body).hexdigest()


def _check(value: Mapping[str, Value]) -> bool:
    """Check that `value` is within the format, except for surrogates; return whether all its keys are ASCII."""
    has_plain_keys = True
    pending: list[Mapping[str, Value] | Sequence[Value]] = [value]
    while pending:
        container = pending.pop()
        members: Collection[Value]
        if isinstance(container, Mapping):
            has_plain_keys = has_plain_keys and _joined(container).isascii()
            members = container.values()
        else:
            members = container
        for member in members:
            if isinstance(member, str | bool):
                continue
            if isinstance(member, int):
                if not -MAX_INTEGER <= member <= MAX_INTEGER:
                    raise CanonicalFormError(f"integer {member} is outside ±(2^53-1)")
            elif isinstance(member, Mapping | list | tuple):
                pending.append(member)
            else:
                raise CanonicalFormError(f"{type(member).__name__} is not part of the format")
    return has_plain_keys


def _joined(keys: Mapping[str, Value]) -> str:
    try:
        return "".join(keys)
    except TypeError as error:
        raise CanonicalFormError("a key is not a text") from error


def _ordered(value: Value) -> Value:
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _ordered(value[key]) for key in keys}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_ordered(member) for member in value]
    return value
