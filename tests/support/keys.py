"""Reads keys without the code of the service."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def public_key(private_pem: Path) -> Ed25519PublicKey:
    """Return the public half of an Ed25519 key file."""
    key = load_pem_private_key(private_pem.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.public_key()
