"""The copies of a ledger that a command line names: how each is read, and why one cannot be."""

import errno
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.bootstrap.databases import database_of
from service.errors import SettingsError
from telemetry.audit.verify import Copy, tables_in

_SQLITE: Final = b"SQLite format 3\0"
_DATABASES: Final = ("sqlite:", "postgresql:", "postgres:")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def copy_of(name: str) -> Copy:
    """Return the copy that a path or a database URL names; a path is not looked at yet.

    Raises:
        AuditraceError: the database cannot be read.
    """
    if is_database_url(name):
        return Copy(name, found=database_of(name, as_it_lies=True).records())
    return Copy(name, [Path(name)])


def is_database_url(name: str) -> bool:
    """Tell whether this is the URL of a database, and no path."""
    return name.startswith(_DATABASES)


def require_archives(paths: Sequence[Path]) -> None:
    """Raise unless all paths are there, and none of them is a database.

    Raises:
        SettingsError: naming each, and what to write instead.
    """
    problems = [f"{path} does not exist" for path in paths if not path.exists()]
    problems += [f"{path} is a database: write --database sqlite:///{path}" for path in paths if _is_database(path)]
    if problems:
        raise SettingsError(problems)


def require_no_tables(paths: Sequence[Path]) -> None:
    """Raise when there is a table among what is at these paths.

    Raises:
        SettingsError: naming each, and what to export instead.
    """
    problems = [
        f"{path} is a table (CSV), which cannot be verified: it lacks the text of the records that was hashed. "
        "Exports with the format otlp-json or jsonl can (`auditrace export`, /v1/audit/export)"
        for path in tables_in(paths)
    ]
    if problems:
        raise SettingsError(problems)


@contextmanager
def reading_copies() -> Generator[None]:
    """Say what to do when files cannot be read within the block.

    Raises:
        SettingsError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            room = f"there is no room in {tempfile.gettempdir()} for what memory does not hold: set TMPDIR"
            raise SettingsError([f"{room} to a folder that has some"]) from error
        where = "" if error.filename is None else f" {error.filename}"
        raise SettingsError([f"the copy could not be read{where}: {error.strerror or error}"]) from error


def _is_database(path: Path) -> bool:
    """Tell whether a file is one of SQLite's, which no archive begins like."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
