"""Files that only their owner may read: created whole or not at all, and refused when others may read them."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.errors import SettingsError
from telemetry.files import why_no_file_in

_PRIVATE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def require_file_can_be_made(path: Path) -> None:
    """Check that a file, and its folder, can be created at a path; nothing is created yet.

    Raises:
        SettingsError: the folder cannot be written.
    """
    why = why_no_file_in(path.parent)
    if why is not None:
        raise SettingsError([f"{path} cannot be written: {why}"], is_unread=True)


def create_private_file(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read, whole and on disk, or not at all. An existing file stays as it is.

    Raises:
        SettingsError: the folder cannot be written.
    """
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, not a rename: when two processes start at the same time, the first key stays.
            os.link(unfinished, path)
        except FileExistsError:
            return
        finally:
            unfinished.unlink()
        sync_folder(path.parent)


def read_private_file(path: Path, what: str, to_do: str = "restore the file that belongs to the database") -> bytes:
    """Return the content of a file that only its owner may read; `what` names the file in errors.

    `to_do` is said of a missing file.

    Raises:
        SettingsError: the file is missing, unreadable, or open to others; the text says what to do.
    """
    try:
        found = path.stat().st_mode
        if stat.S_ISDIR(found):
            # Do not advise to change the mode of a folder: it may be /tmp.
            raise SettingsError([f"the {what} {path} is a folder"])
        mode = stat.S_IMODE(found)
        if mode & _OTHERS:
            raise SettingsError([f"the {what} {path} has mode {mode:04o} and is open to others: chmod 600 {path}"])
        return path.read_bytes()
    except FileNotFoundError as error:
        where = f"{path} is a link to a file that is missing" if path.is_symlink() else f"{path} is missing"
        raise SettingsError([f"the {what} {where}: {to_do}"]) from error
    except OSError as error:
        raise SettingsError([f"the {what} {path} cannot be read: {error.strerror}"], is_unread=True) from error


def require_own_folder(path: Path) -> None:
    """Check that only the owner of a file's folder can replace the file.

    Raises:
        SettingsError: others may write the folder; the text says what to do.
    """
    folder = path.absolute().parent
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & _OTHERS_WRITE:
        raise SettingsError([f"others may write {folder}, so they can replace {path.name}: chmod go-w {folder}"])


@contextmanager
def written(path: Path) -> Generator[None]:
    """Translate an OSError of writing a file into a SettingsError."""
    try:
        yield
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from error


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
