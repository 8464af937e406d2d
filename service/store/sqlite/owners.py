"""Tells which processes on this SQLite file are alive: each has a file lock, which the kernel drops at its death."""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import SettingsError

_NO_NAMES: Final = frozenset({"", ".", ".."})
_IN_NO_NAME: Final = frozenset("/\0")
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OwnerLocks:
    """The lock files beside the database, one for each owner, in one folder for all names of the database.

    Child processes that must end first may inherit the descriptor of the own lock: as long as one of them lives, the
    owner counts as alive.
    """

    def __init__(self, database: Path, owner: str) -> None:
        """Take the lock of `owner`, a name that no other process has ever used.

        Raises:
            SettingsError: the lock files cannot be written.
        """
        self.owner = owner
        path = folder_of_owners(database)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            # Kept open, so that the locks are found also after the folder was moved.
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.descriptor = os.open(owner, _FLAGS | os.O_CREAT, 0o600, dir_fd=self._folder)
        except OSError as error:
            raise SettingsError([f"the folder {path} cannot be written: {error.strerror}"]) from error
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_alive(self, owner: str) -> bool:
        """Tell whether `owner`, or a child that inherited its lock, is alive."""
        # The name comes from the database, and must not lead to a file in another folder.
        return owner == self.owner or (
            owner not in _NO_NAMES and not set(owner) & _IN_NO_NAME and _is_locked(self._folder, owner)
        )

    def release(self) -> None:
        """Release the own lock, and remove its file unless a child still holds the lock."""
        os.close(self.descriptor)
        _is_locked(self._folder, self.owner)
        os.close(self._folder)


def folder_of_owners(database: Path) -> Path:
    """Return the folder of the lock files beside a database, the same one for all its names."""
    real = Path(os.path.realpath(database))
    return real.with_name(f"{real.name}.owners")


def living_owners(database: Path) -> Sequence[str]:
    """Return the names of all living processes that have this database open."""
    path = folder_of_owners(database)
    if not path.exists():
        return []
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(entry.name for entry in path.iterdir() if _is_locked(folder, entry.name))
    finally:
        os.close(folder)


def is_living(database: Path, owner: str) -> bool:
    """Tell whether the process of this name is alive; nothing is changed, not even where it is dead.

    Raises:
        OSError: its lock cannot be looked at.
    """
    if owner in _NO_NAMES or set(owner) & _IN_NO_NAME:
        return False
    try:
        descriptor = os.open(folder_of_owners(database) / owner, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_locked(folder: int, owner: str) -> bool:
    """Tell whether a process holds the lock; if none does, the file is removed, since no process takes it again."""
    try:
        descriptor = os.open(owner, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two processes that check at the same time do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with suppress(FileNotFoundError):
            os.unlink(owner, dir_fd=folder)
    finally:
        os.close(descriptor)
    return False
