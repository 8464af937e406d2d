"""Reads the public keys that verify a ledger, from PEM files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.cli.arguments import require_none
from telemetry.files import read_given

_BEGIN: Final = b"-----BEGIN"
NO_KEY: Final = (
    "no --public-key is given, so nothing shows who wrote the copy: run `auditrace keys public > public.pem` where the "
    "service runs, and get that file from somebody you trust; --without-key only checks that the copy is consistent"
)


def read_public_keys(paths: Sequence[Path]) -> list[Ed25519PublicKey]:
    """Return the public keys in files; a file may hold several.

    Raises:
        SettingsError: a file cannot be read, or holds another thing than Ed25519 public keys; it lists all such files.
    """
    keys: list[Ed25519PublicKey] = []
    problems: list[str] = []
    for path in paths:
        try:
            found = [load_pem_public_key(pem) for pem in _pems(read_given(path))]
        except OSError as error:
            problems.append(f"the public key {path} cannot be read: {error.strerror}")
            continue
        except (ValueError, UnsupportedAlgorithm):
            problems.append(f"{path} is not a PEM public key: make one with `auditrace keys public`")
            continue
        own = [key for key in found if isinstance(key, Ed25519PublicKey)]
        keys += own
        if len(own) < len(found):
            problems.append(f"{path} is not an Ed25519 public key")
    require_none(problems)
    return keys


def _pems(text: bytes) -> Sequence[bytes]:
    """Return the keys of a file one by one: `auditrace keys public --all` prints several."""
    return [_BEGIN + pem for pem in text.split(_BEGIN)[1:]] or [text]
