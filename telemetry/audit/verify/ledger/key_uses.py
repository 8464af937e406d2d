"""Counts which key signed which checkpoints, and by which other keys checkpoints say to be signed."""

from collections import defaultdict
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.signer import fingerprint
from telemetry.audit.verify.ledger.keyring import Keyring
from telemetry.audit.verify.named import KeyUse
from telemetry.audit.verify.record.rotation import RawKey


class _Numbers(NamedTuple):
    """How many there are, and the least and the greatest of their numbers."""

    checkpoints: int = 0
    first: int = 2**64
    last: int = 0

    def and_(self, number: int) -> "_Numbers":
        return _Numbers(self.checkpoints + 1, min(self.first, number), max(self.last, number))


class KeyUses:
    """Counts the checkpoints whose signatures were checked, by key."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys
        self._signed: defaultdict[RawKey, _Numbers] = defaultdict(_Numbers)
        self._refused: defaultdict[str, _Numbers] = defaultdict(_Numbers)

    def signed(self, key: RawKey, number: int) -> None:
        """Count a checkpoint that a key signed which may, or which might at that time."""
        self._signed[key] = self._signed[key].and_(number)

    def refused(self, certificate: str, number: int) -> None:
        """Count a checkpoint with a signature of no key that may sign; `certificate` is the key that it names."""
        self._refused[certificate] = self._refused[certificate].and_(number)

    def keys(self) -> tuple[KeyUse, ...]:
        """Return the given keys, and those that rotations name as far as they signed."""
        known = {key: is_given for key, is_given in self._keys.known().items() if is_given or key in self._signed}
        return tuple(
            _use(_fingerprint(key), self._signed.get(key, _Numbers()), is_given=is_given)
            for key, is_given in known.items()
        )

    def others(self) -> tuple[KeyUse, ...]:
        """Return the keys that checkpoints name whose signature holds under no known key.

        A checkpoint that names a known key was changed, which is no question of keys; one that names none counts when
        no checkpoint at all is signed by a known key.
        """
        known = {_fingerprint(key) for key in self._keys.known()}
        other = {name: numbers for name, numbers in self._refused.items() if name not in known}
        if self._signed or len(other) > 1:
            other.pop("", None)
        return tuple(_use(name or None, numbers, is_given=False) for name, numbers in sorted(other.items()))


def _use(name: str | None, numbers: _Numbers, *, is_given: bool) -> KeyUse:
    if not numbers.checkpoints:
        return KeyUse(name, is_given)
    return KeyUse(name, is_given, numbers.checkpoints, numbers.first, numbers.last)


def _fingerprint(key: RawKey) -> str:
    return fingerprint(Ed25519PublicKey.from_public_bytes(key))
