"""Which processes on this SQLite file are alive: each holds a file lock that the kernel drops when it dies."""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import SettingsError

_NO_NAMES: Final = frozenset({"", ".", ".."})
_IN_NO_NAME: Final = frozenset("/\0")


class OwnerLocks:
    """The lock files beside the database, one an owner; in one folder, whatever the database is called.

    A descriptor of the own lock may be inherited by children that must die first: as long as one of them lives, the
    owner counts as alive.
    """

    def __init__(self, database: Path, owner: str) -> None:
        """Take the lock of `owner`, which no other process has ever used.

        Raises:
            SettingsError: the lock files cannot be written.
        """
        self.owner = owner
        path = folder_of_owners(database)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            # Kept open, so that owners are found in it also when somebody moves it.
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.descriptor = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        except OSError as error:
            raise SettingsError([f"the folder {path} cannot be written: {error.strerror}"]) from error
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_alive(self, owner: str) -> bool:
        """True while `owner`, or a child that inherited its lock, lives."""
        # Whoever wrote the name into the database must not lead this to a file elsewhere.
        return owner == self.owner or (
            owner not in _NO_NAMES and not set(owner) & _IN_NO_NAME and _is_locked(self._folder, owner)
        )

    def release(self) -> None:
        """Give up the own lock, and its file unless a child still holds it."""
        os.close(self.descriptor)
        _is_locked(self._folder, self.owner)
        os.close(self._folder)


def folder_of_owners(database: Path) -> Path:
    """Return the folder beside a database where its lock files lie, whatever the database is called."""
    real = Path(os.path.realpath(database))
    return real.with_name(f"{real.name}.owners")


def living_owners(database: Path) -> Sequence[str]:
    """Return the names of all processes that live and have this database open."""
    path = folder_of_owners(database)
    if not path.exists():
        return []
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(entry.name for entry in path.iterdir() if _is_locked(folder, entry.name))
    finally:
        os.close(folder)


def _is_locked(folder: int, owner: str) -> bool:
    """Tell whether somebody holds the lock; the file of one who never will again is removed."""
    try:
        descriptor = os.open(owner, os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at the same time do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with suppress(FileNotFoundError):
            os.unlink(owner, dir_fd=folder)
    finally:
        os.close(descriptor)
    return False
