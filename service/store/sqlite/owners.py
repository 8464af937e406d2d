"""Which processes on this SQLite file are alive: each holds a file lock that the kernel drops when it dies."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.errors import SettingsError

_NO_NAMES: Final = frozenset({"", ".", ".."})


class OwnerLocks:
    """The lock files beside the database, one an owner.

    A descriptor of the own lock may be inherited by children that must die first: as long as one of them lives, the
    owner counts as alive.
    """

    def __init__(self, database: Path, owner: str) -> None:
        """Take the lock of `owner`, which no other process has ever used.

        Raises:
            SettingsError: the lock files cannot be written.
        """
        self.owner = owner
        self._folder = database.with_name(f"{database.name}.owners")
        self._path = self._folder / owner
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError([f"the folder {self._folder} cannot be written: {error.strerror}"]) from error
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_alive(self, owner: str) -> bool:
        """True while `owner`, or a child that inherited its lock, lives."""
        path = self._folder / owner
        # Whoever wrote the name into the database must not lead this to a file elsewhere.
        return path == self._path or (path.parent == self._folder and owner not in _NO_NAMES and _is_locked(path))

    def release(self) -> None:
        """Give up the own lock, and its file unless a child still holds it."""
        os.close(self.descriptor)
        _is_locked(self._path)


def living_owners(database: Path) -> Sequence[str]:
    """Return the names of all processes that live and have this database open."""
    folder = database.with_name(f"{database.name}.owners")
    return sorted(path.name for path in folder.glob("*") if _is_locked(path))


def _is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock; the file of one who never will again is removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at the same time do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return False
