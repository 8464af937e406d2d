"""Migrates a SQLite file to the newest schema: numbered, forward-only steps, each in a transaction of its own."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from service.errors import SettingsError
from service.store.migrations import Migration, missing_of, steps_of
from service.store.sqlite.connection import translated

MIGRATIONS: Final = steps_of("service.store.sqlite")

_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_OF_LEDGER: Final = "audit_records"


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last step, without additions, that the file has seen; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def additions(connection: sqlite3.Connection) -> Collection[str]:
    """Return the names of the additions that the file has seen."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_additions'").fetchone() is None:
        return ()
    return {name for (name,) in connection.execute("SELECT name FROM schema_additions")}


def missing_steps(connection: sqlite3.Connection) -> Sequence[Migration]:
    """Return the steps that the file has not seen yet.

    Raises:
        SettingsError: the file was written by a newer version, or is the database of another program.
    """
    tables = {str(name) for (name,) in connection.execute(_TABLES)}
    if tables and _OF_LEDGER not in tables:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        to_do = "set AUDITRACE_DATABASE to a file of its own for the ledger"
        raise SettingsError([f"{path} is the database of another program, with tables of its own: {to_do}"])
    return missing_of(MIGRATIONS, schema_version(connection), additions(connection))


def migrate(connection: sqlite3.Connection) -> Sequence[str]:
    """Apply the steps that the file has not seen, and return their names.

    If the process is killed at any point, the file holds whole steps only. Two processes may migrate at the same time.

    Raises:
        SettingsError: a newer version wrote the file, or it is the database of another program.
        TryLaterError: the file cannot be written now.
    """
    with translated():
        return [step.name for step in missing_steps(connection) if _apply(connection, step)]


def _apply(connection: sqlite3.Connection, step: Migration) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Looked at once more behind the lock: another process may have applied it.
        is_missing = step in missing_steps(connection)
        if is_missing:
            for statement in _statements(step.sql):
                connection.execute(statement)
            if step.is_addition:
                connection.execute("INSERT INTO schema_additions (name) VALUES (?)", (step.name,))
            else:
                connection.execute(f"PRAGMA user_version = {step.number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return is_missing


def _statements(sql: str) -> Sequence[str]:
    # `sqlite3.executescript` commits by itself, so the script is split here; triggers contain semicolons too.
    statements: list[str] = []
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
