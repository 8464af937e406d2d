"""Brings a SQLite file to the newest schema: numbered, forward-only steps, each in a transaction of its own."""

import re
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec

from service.errors import SettingsError
from service.store.sqlite.connection import translated

_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_OF_LEDGER: Final = "audit_records"
_FILE: Final = re.compile(r"^(\d{4})_[a-z_]+\.sql$")


class Migration(msgspec.Struct, frozen=True):
    """One step; the schema is the sum of all steps in order."""

    number: int
    name: str
    sql: str


def migrations() -> Sequence[Migration]:
    """Return every migration that this version knows, in order, numbered from 1 without gaps.

    Raises:
        ValueError: a file is misnamed, or a number is missing or stands twice.
    """
    folder = files("service.store.sqlite").joinpath("migrations")
    found: list[Migration] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = _FILE.match(entry.name)
        if match is None:
            raise ValueError(f"{entry.name} is not named like 0001_words.sql")
        found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are not numbered from 1 without gaps")
    return found


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that the file has seen; 0 for an empty file."""
    with translated():
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def missing_steps(connection: sqlite3.Connection) -> int:
    """Return how many steps the file has not seen yet.

    Raises:
        SettingsError: the file was written by a newer version, or is the database of another program.
    """
    with translated():
        tables = {str(name) for (name,) in connection.execute(_TABLES)}
    if tables and _OF_LEDGER not in tables:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        to_do = "set AUDITRACE_DATABASE to a file of its own for the ledger"
        raise SettingsError([f"{path} is the database of another program, with tables of its own: {to_do}"])
    missing = len(migrations()) - schema_version(connection)
    if missing < 0:
        raise SettingsError(["the database was written by a newer version of auditrace: upgrade this process"])
    return missing


def migrate(connection: sqlite3.Connection) -> Sequence[str]:
    """Apply what is missing and return the names of the steps that were applied; none when up to date.

    Killed at any point, the file holds whole steps only. Two processes at once do not disturb each other.

    Raises:
        SettingsError: the file was written by a newer version, or is the database of another program.
        TryLaterError: the file cannot be written now.
    """
    missing_steps(connection)
    applied: list[str] = []
    for migration in migrations():
        if schema_version(connection) >= migration.number:
            continue
        with translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                if schema_version(connection) < migration.number:
                    for statement in _statements(migration.sql):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {migration.number}")
                    applied.append(migration.name)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    missing_steps(connection)
    return applied


def _statements(sql: str) -> Sequence[str]:
    # sqlite3.executescript commits by itself, so the script is split here; a trigger holds semicolons of its own.
    statements: list[str] = []
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
