"""What a rotation record states: from which checkpoint on a new key signs, and the old one does not."""

from collections.abc import Mapping

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from telemetry import names
from telemetry.audit.checkpoint import Number

RawKey = bytes
"""The 32 bytes of a public key."""


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation states: from checkpoint `first` on, `new` signs and `old` does not."""

    old: RawKey
    new: RawKey
    first: int


class SeenRotation(msgspec.Struct, frozen=True):
    """One copy of a rotation record; `signature` is as in `Found`, `is_signed` tells whether it is the old key's."""

    rotation: Rotation
    stream_id: str
    row: bytes
    signature: str | None
    is_signed: bool


class _FromTo(msgspec.Struct, frozen=True, rename={"old": "from", "new": "to"}):
    old: str
    new: str


class _To(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: Number


class _Changes(msgspec.Struct, frozen=True):
    public_key: _FromTo
    first_checkpoint: _To


def rotation_of(attributes: Mapping[str, object]) -> Rotation | None:
    """Return what a rotation record's attributes state, None when they do not have their form."""
    try:
        changes = msgspec.convert(attributes.get(names.AUDITRACE_CHANGES), _Changes)
        old, new = _key_of(changes.public_key.old), _key_of(changes.public_key.new)
    except (msgspec.ValidationError, ValueError, UnsupportedAlgorithm):
        return None
    if old is None or new is None or old == new:
        return None
    return Rotation(raw_of(old), raw_of(new), changes.first_checkpoint.to)


def raw_of(key: Ed25519PublicKey) -> RawKey:
    """Return the 32 bytes of a public key."""
    return key.public_bytes_raw()


def _key_of(pem: str) -> Ed25519PublicKey | None:
    key = load_pem_public_key(pem.encode())
    return key if isinstance(key, Ed25519PublicKey) else None
