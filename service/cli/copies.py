"""The copies of a ledger that a command line names: how each is read, and why one cannot be."""

import errno
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, assert_never

from service.bootstrap.databases import database_of
from service.errors import SettingsError
from telemetry.audit.verify import Copy, NoCopy, no_copies_in

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


def require_paths(paths: Sequence[Path]) -> None:
    """Require files or folders that exist.

    Raises:
        SettingsError: some do not; all of them at once.
    """
    problems = [f"{path} does not exist: name the file or the folder of a copy" for path in paths if not path.exists()]
    if problems:
        raise SettingsError(problems)


def require_copies(paths: Sequence[Path], *, compared: bool = False) -> None:
    """Require that no file is known to be something else; `compared` says that paths may also be database URLs.

    Raises:
        SettingsError: a file is no copy; all of them at once, each with what to do instead.
        OSError: a file cannot be opened or read.
    """
    problems = [_problem(found, is_given=found.path in paths, compared=compared) for found in no_copies_in(paths)]
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


def _problem(found: NoCopy, *, is_given: bool, compared: bool) -> str:
    match found.kind:
        case "table":
            return (
                f"{found.path} is a table (CSV), which cannot be verified: it lacks the text of the records that was "
                "hashed. Exports with the format otlp-json or jsonl can (`auditrace export`, /v1/audit/export)"
            )
        case "database":
            option = "" if compared else "--database "
            otherwise = "" if is_given else ", or name the archive's folder alone"
            return f"{found.path} is a database: write {option}sqlite:///{found.path}{otherwise}"
        case "receipt":
            use = "" if compared else ": name the copy that holds its record, and this file with --receipt"
            return f"{found.path} is an answer of the API with a receipt, not a copy{use}"
        case "problem":
            return f"{found.path} is an error that the API answered, not a copy{found.detail}"
        case "page":
            return f"{found.path} is a page of what the API lists, not a copy: export the records instead"
        case "proof":
            return f"{found.path} is the proof of one record: verify it by itself"
        case _:
            assert_never(found.kind)
