"""Identifies a database file independent of its name, and refuses a file under a second name before it is damaged.

SQLite puts its log, and the locks of the log, beside the name by which it opens a file. A file that is opened by two
names has two logs that are independent of each other, and this destroys it. Symbolic links, relative paths and mounts
of the folder lead to the same name; hard links and mounts of the file alone do not.

Source: sqlite.org/howtocorrupt.html, sections 2.2 and 2.5.
"""

import fcntl
import hashlib
import os
import stat
import struct
import threading
from pathlib import Path
from typing import Final, TypeAlias

from service.errors import LedgerUnavailableError, SettingsError

FileId: TypeAlias = tuple[int, int]
"""Device and inode, which identify a file independent of its name."""

LogPlace: TypeAlias = tuple[int, int, str]
"""Device and inode of the folder, and the file's name in it: where SQLite looks for the log."""

# struct flock: type, whence, start, length, process.
_FLOCK: Final = struct.Struct("hhqqi4x")
# Above all bytes that SQLite locks. A process locks one byte here, which tells at which place it has the file open.
_FIRST_PLACE: Final = 1 << 62
_HASH_BYTES: Final = 7
_NETWORK: Final = frozenset(
    {
        *("afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"),
        *("orangefs", "smb3", "smbfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)


class HeldFile:
    """A database file that this process has open; all connections to it share this object, and each one releases it."""

    def __init__(self, path: Path, file_id: FileId, place: LogPlace, descriptor: int, *, as_it_lies: bool) -> None:
        self.path = path
        self.as_it_lies = as_it_lies
        self.file_id = file_id
        self.place = place
        self.users = 0
        self._descriptor = descriptor

    def release(self) -> None:
        """Release it for one connection, which must be closed before."""
        with _lock:
            self.users -= 1
            if self.users == 0:
                # Only after the last connection: closing any descriptor ends all locks that SQLite has on the file.
                del _held[self.file_id]
                os.close(self._descriptor)


_held: Final[dict[FileId, HeldFile]] = {}
_lock: Final = threading.Lock()


def hold(path: Path, *, as_it_lies: bool = False) -> HeldFile:
    """Prevent every process from opening this file under another name, until it is released.

    Args:
        path: the file.
        as_it_lies: the file is read as a copy, which may have two names, be mounted by itself, or be in a file system
            without locks. It is refused while it is in use under another name, because commits may still be in the log
            of that name.

    Raises:
        SettingsError: SQLite would not find the log of this file, or a process has it open at another place.
        LedgerUnavailableError: there is no such file, it cannot be opened, or it replaced a file that is in use.
    """
    real = Path(os.path.realpath(path))
    with _lock:
        try:
            held = _hold(real, as_it_lies=as_it_lies)
        except OSError as error:
            raise LedgerUnavailableError(f"the database cannot be opened: {error.strerror}") from error
        held.users += 1
        return held


def require_local(path: Path) -> None:
    """Raise unless only this machine can write to the file or folder.

    Raises:
        SettingsError: it is on a file system that other machines share.
        LedgerUnavailableError: its file system cannot be found out.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        problem = network_problem(path, mounts, _mount_of(path))
    except OSError as error:
        raise LedgerUnavailableError(f"the database's file system cannot be looked at: {error.strerror}") from error
    if problem is not None:
        raise SettingsError([problem])


def network_problem(path: Path, mountinfo: str, mount: int) -> str | None:
    """Return why no database can be at a path; None if its file system belongs to this machine.

    Args:
        path: the path, as the reason shows it.
        mountinfo: lines of `/proc/self/mountinfo`.
        mount: the number of the path's mount, from the first column of one of these lines.

    Source: proc_pid_mountinfo(5); sqlite.org/wal.html, "all processes using a database must be on the same host".
    """
    for line in mountinfo.splitlines():
        kind = line.partition(" - ")[2].split(" ", 1)[0]
        if line.split(" ", 1)[0] == str(mount) and kind in _NETWORK:
            return (
                f"{path} is on a network file system ({kind}), where machines do not see each other's log of SQLite: "
                "put the database on a disk of this machine, or use PostgreSQL"
            )
    return None


def require_usable(path: Path) -> None:
    """Raise unless the path has, or can get, a database that this process may write.

    Raises:
        SettingsError, LedgerUnavailableError: as `hold` and `require_local` do.
    """
    require_local(next(place for place in (path, *path.parents) if place.exists()))
    if path.exists():
        hold(path).release()


def file_id(path: Path) -> FileId | None:
    """Identify what is at a path, without following a symbolic link; None if nothing is there or can be looked at."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _hold(real: Path, *, as_it_lies: bool) -> HeldFile:
    # Opened with O_PATH, because closing such a descriptor does not end locks.
    pinned = os.open(real, os.O_PATH | os.O_CLOEXEC)
    try:
        found, folder = os.fstat(pinned), real.parent.stat()
        this, place = (found.st_dev, found.st_ino), (folder.st_dev, folder.st_ino, real.name)
        if any(held.place == place and held.file_id != this for held in _held.values()):
            raise LedgerUnavailableError(
                "the database's file is not the one that this process has open: put that one back, or stop every "
                "process that works on it, and start again"
            )
        if this in _held:
            held = _held[this]
            if held.place != place:
                raise _under_another_name(real)
            if held.as_it_lies and not as_it_lies:
                _require_one_name(real, pinned, found)
                held.as_it_lies = False
            return held
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError([f"{real} is no file: AUDITRACE_DATABASE names the file of the database"])
        if not as_it_lies:
            _require_one_name(real, pinned, found)
        descriptor = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pinned)
    try:
        _lock_place(real, descriptor, place)
    except BaseException as error:
        if not (as_it_lies and isinstance(error, OSError)):
            os.close(descriptor)
            raise
    held = _held[this] = HeldFile(real, this, place, descriptor, as_it_lies=as_it_lies)
    return held


def _require_one_name(real: Path, pinned: int, found: os.stat_result) -> None:
    if found.st_nlink > 1:
        names = f"the database {real} has {found.st_nlink} names (hard links), and SQLite would keep a log beside each"
        raise SettingsError([f"{names}: remove all but one (find -samefile {real} finds them), or copy the file"])
    if _mount_of_open(pinned) != _mount_of(real.parent):
        raise SettingsError(
            [f"the database {real} is mounted by itself, apart from SQLite's log beside it: mount its folder instead"]
        )


def _lock_place(real: Path, descriptor: int, place: LogPlace) -> None:
    """Lock the byte of the place where this process has the file open; raise if another process uses another place.

    If two processes do this at the same time, each sees the other's lock, and both are refused.
    """
    digest = hashlib.sha256(repr(place).encode()).digest()
    byte = _FIRST_PLACE + 1 + int.from_bytes(digest[:_HASH_BYTES])
    # Locks of the open file, not of the process: SQLite opens and closes the file too, and must not end them.
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    for first, length in ((_FIRST_PLACE, byte - _FIRST_PLACE), (byte + 1, 0)):
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
        if kind != fcntl.F_UNLCK:
            raise _under_another_name(real)


def _under_another_name(real: Path) -> SettingsError:
    use = f"the database {real} is in use under another name, or was moved while in use"
    return SettingsError([f"{use}: stop every process that works on it, and start them with one name"])


def _mount_of(path: Path) -> int:
    pinned = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _mount_of_open(pinned)
    finally:
        os.close(pinned)


def _mount_of_open(descriptor: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
