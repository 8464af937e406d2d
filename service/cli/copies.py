"""Tells of each path that `auditrace verify` is given what it is, when it is no copy of the ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from service.errors import SettingsError
from telemetry.audit.verify import NoCopy, no_copies_in


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
            return f"{found.path} is an error that the API answered, not a copy: {found.detail}"
        case "proof":
            return f"{found.path} is the proof of one record: verify it by itself"
        case _:
            assert_never(found.kind)
