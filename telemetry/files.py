"""Checks whether files that settings name can be read or created, without creating anything."""

import errno
import os
import stat
from pathlib import Path

import msgspec


class Unreadable(msgspec.Struct, frozen=True):
    """The reason why a file cannot be read, as a sentence. If it is not missing, another user may be allowed to."""

    why: str
    is_missing: bool


def unreadable(path: Path) -> Unreadable | None:
    """Return the reason why a file cannot be read, None when it can be."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return cannot_be_read(path, error)
    return None


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
    if stat.S_ISDIR(path.stat().st_mode):
        return os.strerror(errno.EISDIR)
    return None if _may_write(path, os.R_OK | os.W_OK) else _why_not(path)


def _may_write(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _why_not(path: Path) -> str:
    is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)
