"""Opens and makes files as this product does: regular files only, without waiting, and private to their owner."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_INPUT: Final = Path("/dev/stdin")
_DESCRIPTORS: Final = (Path("/dev/fd"), Path("/proc/self/fd"))
_KINDS: Final = {
    stat.S_IFDIR: os.strerror(errno.EISDIR),
    stat.S_IFIFO: "it is a named pipe (FIFO), not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


class Unreadable(msgspec.Struct, frozen=True):
    """The reason why a file cannot be read, as a sentence. If it is not missing, another user may be allowed to."""

    why: str
    is_missing: bool


def unreadable(path: Path) -> Unreadable | None:
    """Return the reason why a file cannot be read, None when it can be."""
    try:
        os.close(open_regular(path))
    except OSError as error:
        return cannot_be_read(path, error)
    return None


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open an existing regular file and return its descriptor, at once: a FIFO or device could wait for ever.

    Raises:
        OSError: there is no regular file, or it may not be opened; `strerror` says why.
    """
    # Looked at before, because opening some devices has effects, and again after, because it may be replaced.
    require_regular(path, os.stat(path).st_mode)  # noqa: PTH116 - as `os.open`
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        require_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file, at once.

    Raises:
        OSError: as `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def read_given(path: Path) -> bytes:
    """Return the content of a file that a command line names: a regular file, or a pipe that the shell has opened.

    Raises:
        OSError: as `open_regular`.
    """
    return path.read_bytes() if path == _INPUT or path.parent in _DESCRIPTORS else read_regular(path)


def open_private(path: str, flags: int) -> int:
    """Open a file for `open(…, opener=…)`: a new one has mode 0600 whatever the umask, and no link is followed."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with mode 0700; their names are on disk then.

    Raises:
        OSError: it cannot be made.
    """
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        sync_folder(path.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def kind_of_no_file(mode: int) -> str | None:
    """Return what a mode of `stat` is of, if it is of no regular file, as the end of a sentence."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "it is not a file")


def require_regular(path: Path | str, mode: int) -> None:
    """Raise an OSError unless this mode of `stat` is of a regular file."""
    kind = kind_of_no_file(mode)
    if kind is not None:
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, kind, str(path))


def cannot_be_read(path: Path, error: OSError) -> Unreadable:
    """Return the reason for an error that was raised when a file was read."""
    if not isinstance(error, FileNotFoundError):
        return Unreadable(f"{path} cannot be read: {error.strerror or type(error).__name__}", is_missing=False)
    is_link = path.is_symlink()
    return Unreadable(f"{path} is a link to a file that is not there" if is_link else f"there is no file {path}", True)


def why_no_file_in(folder: Path) -> str | None:
    """Return the reason why no file can be created in a folder, None when one can be; a missing folder is no reason."""
    folder = folder.absolute()
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode
        except NotADirectoryError:
            continue
        except FileNotFoundError:
            if path.is_symlink():
                return f"{path} is a link to a folder that is not there"
            continue
        except OSError as error:
            return error.strerror or type(error).__name__
        if not stat.S_ISDIR(mode):
            return f"{path} is no folder"
        return None if _may_write(path, os.W_OK | os.X_OK) else _why_not(path)
    return os.strerror(errno.ENOENT)


def why_unwritable(path: Path) -> str | None:
    """Return the reason why an existing file cannot be read and written, None when it can be."""
    kind = kind_of_no_file(path.stat().st_mode)
    if kind is not None:
        return kind
    return None if _may_write(path, os.R_OK | os.W_OK) else _why_not(path)


def _may_write(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _why_not(path: Path) -> str:
    is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)


def open_to_others(path: Path) -> str | None:
    """Return why others can change a written file, or put another one in its place, and what helps; None if not.

    Others who may only read it are no reason: a log shipper may be among them. The group counts as the owner, because
    volumes of containers belong to a group (`fsGroup`) that no other process of the machine has.
    """
    folder = path.absolute().parent
    for place in (path, folder):
        if not place.exists():
            continue
        found = place.stat()
        if found.st_uid not in {0, os.geteuid()}:
            return f"{place} belongs to user {found.st_uid}, who can change it: chown {os.geteuid()} {place}"
        is_sticky = place is folder and found.st_mode & stat.S_ISVTX
        if found.st_mode & stat.S_IWOTH and not is_sticky:
            or_else = ", or name a file in a folder of its own" if place is folder else ""
            return f"others may write {place}: chmod o-w {place}{or_else}"
    return None
