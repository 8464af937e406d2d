"""The private key of the writer of checkpoints (docs/audit-format.md, section 5)."""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from telemetry import names
from telemetry.audit.checkpoint import sign

SIGNED_EVENTS: Final = frozenset({names.EVENT_AUDIT_CHECKPOINT, names.EVENT_AUDIT_KEY_ROTATE})
"""The events whose records hold a signature over their body."""


class Signer:
    """Signs bodies with one private key, and does not show the key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key()
        self.public_pem = public_pem(self.public_key)
        self.fingerprint = fingerprint(self.public_key)

    def sign(self, body: bytes) -> str:
        """Return the value of `audit.integrity.value` for a body."""
        return sign(self._key, body)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return `sha256:<hex of the raw public key's hash>`, as in `audit.integrity.certificate`."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def public_pem(key: Ed25519PublicKey) -> str:
    """Return the public key as PEM: the form in which it is distributed, and that a rotation holds."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
