"""The uses of the deployment's ledger secret: MACs, masks of sensitive parameters, and their encryption.

Each use has its own key, derived with HKDF-SHA256 (RFC 5869), so that the output of one use does not help to attack
another.
"""

import hashlib
import hmac
import os
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12
MASK_PREFIX: Final = "hmac-sha256:"


class DeploymentSecret:
    """The secret that all nodes share. It is not in the database."""

    def __init__(self, secret: bytes) -> None:
        """Derive the keys; `secret` has at least 32 bytes."""
        self._tip_key = _derive(secret, b"auditrace tip")
        self._anchor_key = _derive(secret, b"auditrace anchor")
        self._checkpoint_key = _derive(secret, b"auditrace checkpoint")
        self._signing_key_key = _derive(secret, b"auditrace signing key")
        self._configuration_key = _derive(secret, b"auditrace configuration")
        self._api_key_key = _derive(secret, b"auditrace api key")
        self._mask_key = _derive(secret, b"auditrace mask")
        self._parameters = AESGCM(_derive(secret, b"auditrace parameters"))

    def tip_mac(self, stream_id: str, number: int, record_hash: str) -> str:
        """Return the MAC over a stream's tip, in hex. Without the secret nobody can change a tip unnoticed."""
        return _mac(self._tip_key, stream_id, number, record_hash)

    def anchor_mac(self, stream_id: str, number: int, record_hash: str, closed: int, checkpoint: int) -> str:
        """Return the MAC over a stream's anchor, the last tip that a checkpoint named."""
        return _mac(self._anchor_key, stream_id, number, record_hash, closed, checkpoint)

    def checkpoint_mac(
        self, number: int, record_hash: str, signature: str, fingerprint: str, streams: int, records: int
    ) -> str:
        """Return the MAC over the values of this checkpoint that the next one needs."""
        return _mac(self._checkpoint_key, number, record_hash, signature, fingerprint, streams, records)

    def key_mac(self, number: int, public_pem: str, first_checkpoint: int, rotation: str) -> str:
        """Return the MAC over the registration of a signing key."""
        return _mac(self._signing_key_key, number, public_pem, first_checkpoint, rotation)

    def configuration_mac(self, *values: str | int) -> str:
        """Return the MAC over all values of a stored configuration."""
        return _mac(self._configuration_key, *values)

    def api_key_mac(self, *values: str | int | None) -> str:
        """Return the MAC over all values of an API key but its revocation."""
        return _mac(self._api_key_key, *values)

    def mask(self, value: str) -> str:
        """Return the visible form of a sensitive value: equal values have equal masks, and no value can be read."""
        return MASK_PREFIX + hmac.new(self._mask_key, value.encode(), hashlib.sha256).hexdigest()

    def encrypt(self, value: str, job_id: str) -> bytes:
        """Encrypt a sensitive value of a job (AES-256-GCM, with the job id as authenticated data)."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._parameters.encrypt(nonce, value.encode(), job_id.encode())

    def decrypt(self, ciphertext: bytes, job_id: str) -> str:
        """Return the value that `encrypt` got for this job."""
        nonce, sealed = ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:]
        return self._parameters.decrypt(nonce, sealed, job_id.encode()).decode()


def _mac(key: bytes, *parts: str | int | None) -> str:
    # JSON, so that different lists of parts always give different bytes.
    return hmac.new(key, msgspec.json.encode(parts), hashlib.sha256).hexdigest()


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=purpose).derive(secret)
