"""Files that only their owner may read: created whole or not at all, and refused when others may read them."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.errors import SettingsError
from telemetry.files import (
    kind_of_no_file,
    make_private_folder,
    open_private,
    read_regular,
    sync_folder,
    why_no_file_in,
)

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
        make_private_folder(path.parent)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        # What a killed process of this number left.
        unfinished.unlink(missing_ok=True)
        with open(unfinished, "xb", opener=open_private) as file:
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


def read_private_file(
    path: Path, what: str, to_do: str = "restore the file that belongs to the database", *, named_by: str = ""
) -> bytes:
    """Return the content of a file that only its owner may read; `what` names the file in errors.

    `to_do` is said of a missing file, and the setting `named_by` of what is no file.

    Raises:
        SettingsError: the file is missing, unreadable, or open to others; the text says what to do.
    """
    try:
        found = path.stat()
        no_file = kind_of_no_file(found.st_mode)
        if no_file is not None:
            # Do not advise to change the mode of a folder: it may be /tmp.
            kind = "it is a folder" if stat.S_ISDIR(found.st_mode) else no_file
            setting = f": {named_by} names a file" if named_by else ""
            raise SettingsError([f"the {what} {path}: {kind}{setting}"])
        require_own(path, found, what)
        mode = stat.S_IMODE(found.st_mode)
        if mode & _OTHERS:
            raise SettingsError([f"the {what} {path} has mode {mode:04o} and is open to others: chmod 600 {path}"])
        return read_regular(path)
    except FileNotFoundError as error:
        where = f"{path} is a link to a file that is missing" if path.is_symlink() else f"{path} is missing"
        named = f" ({named_by})" if named_by else ""
        raise SettingsError([f"the {what} {where}: {to_do}{named}"]) from error
    except OSError as error:
        raise SettingsError([f"the {what} {path} cannot be read: {error.strerror}"], is_unread=True) from error


def require_own_folder(path: Path) -> None:
    """Check that only this user, and root, can replace a file in its folder.

    Folders above it need no check: a file of another user in another folder of this name is refused.

    Raises:
        SettingsError: others may write the folder, or it belongs to another user; the text says what to do.
    """
    folder = path.absolute().parent
    if not folder.exists():
        return
    found = folder.stat()
    require_own(folder, found, "folder")
    if found.st_mode & _OTHERS_WRITE:
        raise SettingsError([f"others may write {folder}, so they can replace {path.name}: chmod go-w {folder}"])


def require_own(path: Path, found: os.stat_result, what: str) -> None:
    """Check that a file or folder belongs to this user or root, because its owner can change it.

    Raises:
        SettingsError: it belongs to another user; the text says what to do.
    """
    if found.st_uid not in {0, os.geteuid()}:
        owner = f"the {what} {path} belongs to user {found.st_uid}, who can change it"
        raise SettingsError([f"{owner}: chown {os.geteuid()} {path}"])


@contextmanager
def written(path: Path) -> Generator[None]:
    """Translate an OSError of writing a file into a SettingsError."""
    try:
        yield
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from error
