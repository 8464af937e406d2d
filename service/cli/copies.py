"""Opens the copies of a ledger that a command line names, and says why a file is not a copy."""

import errno
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, assert_never

from service.bootstrap.databases import database_of
from service.cli.arguments import require_none
from service.errors import SettingsError
from telemetry.audit.verify import Copy, NoCopy, no_copies_in
from telemetry.urls import shown

_DATABASES: Final = ("sqlite:", "postgresql:", "postgres:")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def copy_of(name: str) -> Copy:
    """Return the copy that a path or a database URL names; a path is not opened yet.

    Raises:
        AuditraceError: the database cannot be read.
    """
    if is_database_url(name):
        return Copy(shown(name), found=database_of(name, as_it_lies=True).records())
    return Copy(name, [Path(name)])


def is_database_url(name: str) -> bool:
    """Return whether this is the URL of a database, not a path."""
    return name.startswith(_DATABASES)


def require_paths(paths: Sequence[Path]) -> None:
    """Require that all files or folders exist.

    Raises:
        SettingsError: it lists all that do not exist.
    """
    problems = [f"{path} does not exist: name the file or the folder of a copy" for path in paths if not path.exists()]
    require_none(problems)


def require_copies(paths: Sequence[Path], *, compared: bool = False) -> None:
    """Require that no file is known to be something else; with `compared`, the user may also give database URLs.

    Raises:
        SettingsError: it lists all files that are not copies, each with what to do instead.
        OSError: a file cannot be opened or read.
    """
    problems = [_problem(found, is_given=found.path in paths, compared=compared) for found in no_copies_in(paths)]
    require_none(problems)


@contextmanager
def reading_copies() -> Generator[None]:
    """Translate errors of reading files within the block into an error that says what to do.

    Raises:
        SettingsError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            room = f"there is no room in {tempfile.gettempdir()} for temporary files"
            raise SettingsError([f"{room}: set TMPDIR to a folder that has some"]) from error
        where = "" if error.filename is None else f" {error.filename}"
        raise SettingsError([f"the copy could not be read{where}: {error.strerror or error}"]) from error


def _problem(found: NoCopy, *, is_given: bool, compared: bool) -> str:
    match found.kind:
        case "table":
            return (
                f"{found.path} is a table (CSV), which cannot be verified: it lacks the hashed text of the records. "
                "Export with the format otlp-json or jsonl instead (`auditrace export`, /v1/audit/export)"
            )
        case "database":
            option = "" if compared else "--database "
            otherwise = "" if is_given else ", or name the archive's folder only"
            return f"{found.path} is a database: write {option}sqlite:///{found.path}{otherwise}"
        case "receipt":
            use = "" if compared else ": name the copy that holds the record, and this file with --receipt"
            return f"{found.path} is an answer of the API with a receipt, not a copy{use}"
        case "problem":
            return f"{found.path} is an error that the API answered, not a copy{found.detail}"
        case "page":
            return f"{found.path} is a page of an API list, not a copy: export the records instead"
        case "proof":
            return f"{found.path} is the proof of one record: verify it by itself"
        case _:
            assert_never(found.kind)
