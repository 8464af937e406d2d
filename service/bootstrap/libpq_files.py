"""Checks the files that libpq reads by itself: it would wait for a FIFO for ever, or pass over it with a warning."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from service.errors import SettingsError
from telemetry.files import kind_of_no_file

_PARAMETERS: Final[Mapping[str, str]] = {
    "passfile": "PGPASSFILE",
    "servicefile": "PGSERVICEFILE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
}
"""The parameters of a connection that name a file, each with its variable. Source: PostgreSQL documentation, 34.15."""


def require_regular_files(url: str) -> None:
    """Check the files that the URL or the `PG*` variables name; one that is not there is left to libpq.

    Raises:
        SettingsError: lists those that are no files, and links to nowhere.
    """
    problems = [
        problem
        for parameter, variable in _PARAMETERS.items()
        for name, path in (
            (f"{parameter} of AUDITRACE_DATABASE", _stated(url).get(parameter)),
            (variable, os.environ.get(variable)),
        )
        if path and (problem := _problem(name, Path(str(path))))
    ]
    if problems:
        raise SettingsError(problems)


def _stated(url: str) -> Mapping[str, str | int | None]:
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The URL is refused where it is used.
        return {}


def _problem(name: str, path: Path) -> str | None:
    try:
        kind = kind_of_no_file(path.stat().st_mode)
    except FileNotFoundError:
        return f"{name}: {path} is a link to a file that is not there" if path.is_symlink() else None
    except OSError as error:
        return f"{name}: {path} cannot be read: {error.strerror}"
    return f"{name}: {path} cannot be read: {kind}" if kind else None
