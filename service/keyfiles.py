"""The key files of a deployment: read with care for their permissions, created only for an empty database.

A rotation keeps the new key in a second file until the database names it as the one that signs. So whenever a process
dies, the private key that the database names is on disk: at its path, or beside it.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

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
from service.secrets import SECRET_BYTES, DeploymentSecret
from telemetry.audit.signer import Signer

_PRIVATE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


class SigningKeys:
    """The signing key of this process (PKCS#8 PEM, Ed25519), and the one that a rotation is about to put in its place.

    Raises (each method):
        SettingsError: a file is missing, unreadable, open to others, encrypted with another passphrase, or no such key.
    """

    def __init__(self, path: Path, passphrase: Path | None = None) -> None:
        """Name the files; `passphrase` is one that holds the passphrase, None for a key that is not encrypted."""
        self.path = path
        self.pending = path.with_name(f"{path.name}.next")
        self._passphrase = passphrase
        self._found: dict[str, Signer] = {}

    def open(self, *, may_create: bool) -> Signer:
        """Return the key at its path; with `may_create`, make one with mode 0600 if there is none."""
        if may_create and not self.path.exists():
            create_private_file(self.path, self._pem(Ed25519PrivateKey.generate()))
        return self._read(self.path)

    def find(self, fingerprint: str) -> Signer | None:
        """Return the private key with this fingerprint, None when neither file holds it.

        The files are read anew when it is not known yet, because another process may rotate the key.
        """
        # The path twice, because a rotation that ends in between moves the pending file to it.
        for path in (self.path, self.pending, self.path):
            if fingerprint not in self._found:
                signer = self._read_if_there(path)
                if signer is not None:
                    self._found[signer.fingerprint] = signer
        return self._found.get(fingerprint)

    def rotate(self, current: Callable[[], str], new_key: Path | None, commit: Callable[[Signer], int]) -> int:
        """Put a new key in the place of the one that signs now, whose file is then gone; return what `commit` returns.

        Args:
            current: returns the fingerprint of the key that signs now, as the database has it.
            new_key: a file with the new key; None to make one, encrypted if there is a passphrase.
            commit: makes the new key the one that signs, in the database; on disk when it returns.
        """
        with self._locked():
            # What an earlier rotation left: finished if it was committed, else forgotten.
            self._settle(current())
            new = self._stage(new_key)
            if new.fingerprint == current():
                self.pending.unlink()
                raise SettingsError([f"{new_key} holds the key that signs now: rotation needs another"])
            # Whatever becomes of the commit, the pending file stays until one is known to have succeeded.
            first_checkpoint = commit(new)
            self._settle(new.fingerprint)
        return first_checkpoint

    def settle(self, fingerprint: str) -> None:
        """Finish a rotation that was committed, and whose process died before the key was in its place."""
        if self.pending.exists():
            with self._locked():
                self._settle(fingerprint)

    def _settle(self, fingerprint: str) -> None:
        pending = self._read_if_there(self.pending)
        if pending is not None and pending.fingerprint == fingerprint:
            with _written(self.path):
                self.pending.replace(self.path)
                _sync(self.path.parent)

    def _stage(self, new_key: Path | None) -> Signer:
        if new_key is None:
            pem = self._pem(Ed25519PrivateKey.generate())
        else:
            pem = read_private_file(new_key, "new signing key")
            self._load(pem, new_key)
        with _written(self.pending):
            self.pending.unlink(missing_ok=True)
        create_private_file(self.pending, pem)
        return self._read(self.pending)

    def _read(self, path: Path) -> Signer:
        return Signer(self._load(read_private_file(path, "signing key"), path))

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
            because = "the passphrase is another" if passphrase else "it is damaged"
            raise SettingsError(
                [f"the signing key {path} cannot be read: {because}, or it is no PKCS#8 key"]
            ) from error
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
        passphrase = read_private_file(self._passphrase, "passphrase of the signing key").rstrip(b"\r\n")
        if not passphrase:
            raise SettingsError([f"{self._passphrase} holds no passphrase"])
        return passphrase

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep other processes from rotating at the same time: two could each overwrite what the other made."""
        with _written(self.path):
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def deployment_secret(path: Path, *, may_create: bool) -> DeploymentSecret:
    """Return the secret that all nodes share; with `may_create`, make one with mode 0600 if there is none.

    Raises:
        SettingsError: missing, unreadable, open to others, or too short.
    """
    if may_create and not path.exists():
        create_private_file(path, os.urandom(SECRET_BYTES).hex().encode() + b"\n")
    secret = read_private_file(path, "ledger secret").strip()
    if len(secret) < SECRET_BYTES:
        raise SettingsError([f"the ledger secret {path} is shorter than {SECRET_BYTES} bytes"])
    return DeploymentSecret(secret)


def create_private_file(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read, whole and on disk or not at all; one that exists is left as it is.

    Raises:
        SettingsError: the folder cannot be written.
    """
    with _written(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, not a rename: of two processes that start at once, the first one's key stays.
            os.link(unfinished, path)
        except FileExistsError:
            return
        finally:
            unfinished.unlink()
        _sync(path.parent)


def read_private_file(path: Path, what: str) -> bytes:
    """Return the content of a file that nobody but its owner may read.

    Raises:
        SettingsError: missing, unreadable, or open to others; it says what to do.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            raise SettingsError([f"the {what} {path} has mode {mode:04o} and is open to others: chmod 600 {path}"])
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SettingsError([f"the {what} {path} is missing: restore the file that belongs to the database"]) from error
    except OSError as error:
        raise SettingsError([f"the {what} {path} cannot be read: {error.strerror}"]) from error


def require_own_folder(path: Path) -> None:
    """Make sure that nobody but the owner of a file's folder can exchange the file.

    Raises:
        SettingsError: others may write the folder; it says what to do.
    """
    folder = path.absolute().parent
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & _OTHERS_WRITE:
        raise SettingsError([f"others may write {folder}, and so exchange {path.name}: chmod go-w {folder}"])


@contextmanager
def _written(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
