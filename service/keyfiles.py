"""The key files of a deployment: read only with private permissions, created only for an empty database.

A rotation keeps the new key in a second file until the database names it as the signing key. So the private key that
the database names is always on disk, whenever a process dies: at its path, or in the file beside it.
"""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from service.errors import SettingsError
from service.private_files import (
    create_private_file,
    read_private_file,
    require_file_can_be_made,
    written,
)
from service.secrets import SECRET_BYTES, DeploymentSecret
from telemetry.audit.signer import Signer
from telemetry.files import sync_folder


class SigningKeys:
    """The signing key of this process (PKCS#8 PEM, Ed25519), and the new key of a rotation in progress.

    Raises (each method):
        SettingsError: a file is missing, unreadable, open to others, encrypted with another passphrase, or not such a
            key.
    """

    def __init__(self, path: Path, passphrase: Path | None = None) -> None:
        """Set the paths; `passphrase` is the file of the passphrase, None for a key that is not encrypted."""
        self.path = path
        self.pending = path.with_name(f"{path.name}.next")
        self._passphrase = passphrase
        self._found: dict[str, Signer] = {}

    def examine(self, *, may_create: bool) -> Signer | None:
        """Return the key at its path, or None if `open` would make one; raise the errors that `open` would raise."""
        if not may_create or os.path.lexists(self.path):
            return self._read(self.path)
        self._read_passphrase()
        require_file_can_be_made(self.path)
        return None

    def open(self, *, may_create: bool) -> Signer:
        """Return the key at its path; with `may_create`, make one with mode 0600 if it is missing."""
        if may_create and not os.path.lexists(self.path):
            create_private_file(self.path, self._pem(Ed25519PrivateKey.generate()))
        return self._read(self.path)

    def find(self, fingerprint: str) -> Signer | None:
        """Return the private key with this fingerprint, or None when neither file holds it.

        An unknown fingerprint makes it read the files again, because another process may have rotated the key.
        """
        # Read the path twice: a rotation that ends in between moves the pending file there.
        for path in (self.path, self.pending, self.path):
            if fingerprint not in self._found:
                signer = self._read_if_there(path)
                if signer is not None:
                    self._found[signer.fingerprint] = signer
        return self._found.get(fingerprint)

    def rotate(self, current: Callable[[], str], new_key: Path | None, commit: Callable[[Signer], int]) -> int:
        """Replace the signing key and its file by a new key; return the result of `commit`.

        Args:
            current: returns the fingerprint of the present signing key, read from the database.
            new_key: a file with the new key; None to make one, encrypted if there is a passphrase.
            commit: makes the new key the signing key in the database; that is on disk when it returns.
        """
        with self._locked():
            # Finish an earlier rotation if it was committed; otherwise `_stage` replaces its file.
            self._settle(current())
            new = self._stage(new_key)
            if new.fingerprint == current():
                self.pending.unlink()
                raise SettingsError([f"{new_key} holds the key that signs now: rotation needs another"])
            # If the commit fails or its result is unknown, the pending file stays until a later commit has succeeded.
            first_checkpoint = commit(new)
            self._settle(new.fingerprint)
        return first_checkpoint

    def settle(self, fingerprint: str) -> None:
        """Finish a committed rotation whose process died before the key file was moved to its path."""
        if self.pending.exists():
            with self._locked():
                self._settle(fingerprint)

    def _settle(self, fingerprint: str) -> None:
        pending = self._read_if_there(self.pending)
        if pending is not None and pending.fingerprint == fingerprint:
            with written(self.path):
                self.pending.replace(self.path)
                sync_folder(self.path.parent)

    def _stage(self, new_key: Path | None) -> Signer:
        if new_key is None:
            pem = self._pem(Ed25519PrivateKey.generate())
        else:
            pem = read_private_file(new_key, "new signing key", named_by="--new-key")
            self._load(pem, new_key)
        with written(self.pending):
            self.pending.unlink(missing_ok=True)
        create_private_file(self.pending, pem)
        return self._read(self.pending)

    def _read(self, path: Path) -> Signer:
        return Signer(self._load(read_private_file(path, "signing key", named_by="AUDITRACE_SIGNING_KEY"), path))

    def _read_if_there(self, path: Path) -> Signer | None:
        try:
            return self._read(path)
        except SettingsError:
            if path.exists():
                raise
            return None

    def _load(self, pem: bytes, path: Path) -> Ed25519PrivateKey:
        if b"PRIVATE KEY-----" not in pem:
            raise SettingsError([f"the signing key {path} is not a PKCS#8 PEM file"])
        passphrase = self._read_passphrase()
        if b"ENCRYPTED" not in pem:
            passphrase = None
        elif passphrase is None:
            to_do = "set AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE to the file with its passphrase"
            raise SettingsError([f"the signing key {path} is encrypted: {to_do}"])
        try:
            key = load_pem_private_key(pem, password=passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            because = "the passphrase is wrong" if passphrase else "it is damaged"
            problem = f"the signing key {path} cannot be read: {because}, or it is not a PKCS#8 key"
            raise SettingsError([problem]) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError([f"the signing key {path} is not an Ed25519 key"])
        return key

    def _pem(self, key: Ed25519PrivateKey) -> bytes:
        passphrase = self._read_passphrase()
        encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def _read_passphrase(self) -> bytes | None:
        if self._passphrase is None:
            return None
        passphrase = read_private_file(
            self._passphrase,
            "passphrase of the signing key",
            named_by="AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE",
        ).rstrip(b"\r\n")
        if not passphrase:
            raise SettingsError([f"{self._passphrase} holds no passphrase"])
        return passphrase

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Exclude rotations by other processes: two at the same time could overwrite each other's key."""
        with written(self.path):
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def examine_secret(path: Path, *, may_create: bool) -> DeploymentSecret | None:
    """Return the secret, or None if `deployment_secret` would make one; raise the errors that it would raise."""
    if not may_create or os.path.lexists(path):
        return deployment_secret(path, may_create=False)
    require_file_can_be_made(path)
    return None


def deployment_secret(path: Path, *, may_create: bool) -> DeploymentSecret:
    """Return the secret that all nodes share; with `may_create`, make one with mode 0600 if it is missing.

    Raises:
        SettingsError: the file is missing, unreadable, open to others, or too short.
    """
    if may_create and not os.path.lexists(path):
        create_private_file(path, os.urandom(SECRET_BYTES).hex().encode() + b"\n")
    secret = read_private_file(path, "ledger secret", named_by="AUDITRACE_LEDGER_SECRET").strip()
    if len(secret) < SECRET_BYTES:
        raise SettingsError([f"the ledger secret {path} is shorter than {SECRET_BYTES} bytes"])
    return DeploymentSecret(secret)
