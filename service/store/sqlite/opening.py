"""What is asked of a file before its ledger is opened: can it be written, and is there one in it."""

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
from telemetry.files import why_no_file_in, why_unwritable


def examine(path: Path, url: str, reading: OpenFile = in_use) -> str:
    """Return what there is, in a few words, once a file at this path could be opened for writing; nothing is made.

    Args:
        path: without symbolic links.
        url: with the path as it was given: a link to a folder that is not there most often means one not mounted.
        reading: how the file is opened for reading.

    Raises:
        SettingsError: it could not be, or a newer version has written it.
        BrokenLedgerError: it is no database.
        TryLaterError: it cannot be looked at.
    """
    size = _size(path)
    named = Path(url.removeprefix(URL_PREFIX))
    for folder in (named.parent, folder_of_owners(path)):
        if folder == named.parent or os.path.lexists(folder):
            why = why_no_file_in(folder)
            if why is not None:
                raise SettingsError([f"the data folder {folder} cannot be written: {why}"], is_unread=True)
    require_usable(path)
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
    """Raise unless there is a ledger in the file of this URL: nothing is made in another database.

    Raises:
        SettingsError: there is none, which most often means that this is another folder than that of the service.
    """
    if is_empty(path, reading):
        to_do = "run this in the folder of the service, or set AUDITRACE_DATABASE; the first start makes one"
        raise SettingsError([f"there is no ledger at {url} ({path}): {to_do}"])


def is_empty(path: Path, reading: OpenFile = in_use) -> bool:
    """True while nothing was committed to the database, and no key registered: only then may keys be made for it."""
    if not _size(path):
        return True
    with _named(path), reading(path) as connection:
        return opening.is_empty(executing(connection))


@contextmanager
def _named(path: Path) -> Generator[None]:
    """Say in errors which file it is: the wrong one, most often. Only commands and starts show them."""
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
