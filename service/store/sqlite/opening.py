"""Checks a file before its ledger is opened: whether it can be written, and whether it has a ledger."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from service.errors import BrokenLedgerError, LedgerUnavailableError, SettingsError
from service.store import opening
from service.store.sqlite.connection import URL_PREFIX
from service.store.sqlite.identity import require_usable
from service.store.sqlite.migrate import missing_steps
from service.store.sqlite.owners import folder_of_owners
from service.store.sqlite.statements import executing
from service.store.sqlite.untouched import OpenFile, in_use
from telemetry import urls
from telemetry.files import open_to_others, why_no_file_in, why_unwritable


def examine(path: Path, url: str, reading: OpenFile = in_use) -> str:
    """Check that a file at this path could be opened for writing, and describe it in a few words; nothing is made.

    Args:
        path: without symbolic links.
        url: with the path as it was given. A link to a missing folder most often means that a disk is not mounted.
        reading: how the file is opened for reading.

    Raises:
        SettingsError: the file could not be written, or a newer version wrote it.
        BrokenLedgerError: it is not a database.
        TryLaterError: it cannot be looked at.
    """
    size = _size(path)
    named = Path(url.removeprefix(URL_PREFIX))
    for folder in (named.parent, folder_of_owners(path)):
        if folder == named.parent or os.path.lexists(folder):
            why = why_no_file_in(folder)
            if why is not None:
                raise SettingsError([f"the data folder {folder} cannot be written: {why}"], is_unread=True)
    if named.is_symlink() and not named.exists():
        raise SettingsError([f"AUDITRACE_DATABASE: {named} is a link to a file that is not there"])
    require_usable(path)
    others = open_to_others(path)
    if others is not None:
        raise SettingsError([f"the database {path} is not safe: {others}"])
    if size is None:
        return f"the first start makes {path}"
    why = why_unwritable(path)
    if why is not None:
        raise SettingsError([f"the database {path} cannot be written: {why}"], is_unread=True)
    if size == 0:
        return f"{path} is empty"
    with _named(path), reading(path) as connection:
        missing = len(missing_steps(connection))
    return f"{path}{f'; the next start applies {missing} steps to its schema' if missing else ''}"


def require_ledger(path: Path, url: str, reading: OpenFile = in_use) -> None:
    """Raise unless there is a ledger in the file of this URL, so that none is made in a wrong database.

    Raises:
        SettingsError: there is none; most often the command runs in another folder than the service.
    """
    if is_empty(path, reading):
        to_do = "run this in the folder of the service, or set AUDITRACE_DATABASE; the first start makes one"
        raise SettingsError([f"there is no ledger at {urls.shown(url)} ({path}): {to_do}"])


def is_empty(path: Path, reading: OpenFile = in_use) -> bool:
    """Tell whether nothing was committed and no key registered; only then may keys be made for the database."""
    if not _size(path):
        return True
    with _named(path), reading(path) as connection:
        return opening.is_empty(executing(connection))


@contextmanager
def _named(path: Path) -> Generator[None]:
    """Add the path to errors, because it is most often the wrong file. Only commands and starts show them."""
    try:
        yield
    except BrokenLedgerError as error:
        raise BrokenLedgerError(f"{path}: {error}") from error
    except LedgerUnavailableError as error:
        raise LedgerUnavailableError(f"{path}: {error.detail}", reason=error.reason) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"the database {path} cannot be looked at: {error.strerror}"
        raise SettingsError([problem], is_unread=True) from error
