"""A user for one run: a number that no other run and no other process of this host has, and its rights.

It uses only the standard library, because the supervisor imports it.
"""

import ctypes
import errno
import fcntl
import os
import secrets
import struct
from pathlib import Path
from typing import Final

from service.execution.command import control_process

FIRST: Final = 61_184
LAST: Final = 65_519
"""The range that systemd keeps for users that exist only while a service runs (`DynamicUser=`)."""

_PR_CAPBSET_DROP: Final = 24
_CAPABILITY_VERSION: Final = 0x20080522
_TRIES: Final = 100
_TAKEN: Final = "/run/auditrace-run-users"
"""A file of root in which the byte of a taken number is locked: no other user can take the numbers away from runs."""


class RunUser:
    """A user that this process took for one run; it is free again when this process ends."""

    def __init__(self) -> None:
        """Take a user.

        Raises:
            OSError: none is free, or this process is not root.
        """
        busy = _users_at_work()
        taken = os.open(_TAKEN, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        for _ in range(_TRIES):
            number = FIRST + secrets.randbelow(LAST - FIRST + 1)
            if number in busy:
                continue
            try:
                # The kernel frees the lock with this process. It is never closed before, because closing any descriptor
                # of the file would free it.
                fcntl.lockf(taken, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            self.number = number
            return
        raise OSError(errno.EAGAIN, f"no user from {FIRST} to {LAST} is free for the run")

    def own(self, folder: Path) -> None:
        """Give a folder with its content to the user, before any process of the run exists."""
        for parent, folders, files in os.walk(folder):
            for name in [*folders, *files]:
                os.lchown(Path(parent, name), self.number, self.number)
        os.lchown(folder, self.number, self.number)


def user_of(pid: int) -> int | None:
    """Return the user of a process; None when it has ended."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def become(user: int | None) -> None:
    """Give up all capabilities of this process for good, and its user for `user` unless that is None.

    Raises:
        OSError: the kernel refused a call.
    """
    _drop_bounds()
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("=II", _CAPABILITY_VERSION, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities could not be dropped")


def _drop_bounds() -> None:
    """Empty the bounding set, so that no program that root executes gets capabilities; only root has to."""
    for capability in range(64):
        try:
            control_process(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            if error.errno == errno.EPERM and os.geteuid() != 0:
                return
            raise


def _users_at_work() -> set[int]:
    found: set[int] = set()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (user := user_of(int(entry.name))) is not None:
                found.add(user)
    return found
