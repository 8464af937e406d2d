"""Brings a database to the newest schema: numbered, forward-only steps, each in a transaction of its own."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import msgspec

from service.errors import SettingsError
from service.store.postgres.connection import Session, translated

_FILE: Final = re.compile(r"^(\d{4})_[a-z_]+\.sql$")
_OLDEST_SERVER: Final = 150_000
_LOCK: Final = b"SELECT pg_advisory_xact_lock(hashtext('auditrace migrations'))"
# Asked of the catalogue and not of the session's memory of it, which another process may just have made stale.
_HAS_STEPS: Final = b"""
SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_steps')
"""
_MAKE_STEPS: Final = b"""
CREATE TABLE schema_steps (number bigint PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""
_LAST_STEP: Final = b"SELECT coalesce(max(number), 0) FROM schema_steps"
_ADD_STEP: Final = b"INSERT INTO schema_steps (number, name) VALUES (%(number)s, %(name)s)"


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
    folder = files("service.store.postgres").joinpath("migrations")
    found: list[Migration] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = _FILE.match(entry.name)
        if match is None:
            raise ValueError(f"{entry.name} is not named like 0001_words.sql")
        found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are not numbered from 1 without gaps")
    return found


def schema_version(session: Session) -> int:
    """Return the number of the last migration that the database has seen; 0 for one without any."""
    with translated():
        ((has_steps,),) = session.execute(_HAS_STEPS).fetchall()
        if not has_steps:
            return 0
        ((version,),) = session.execute(_LAST_STEP).fetchall()
    return int(version)


def missing_steps(session: Session) -> int:
    """Return how many steps the database has not seen yet.

    Raises:
        SettingsError: the server is not one that this version works on, or a newer version has been here.
    """
    _check_server(session)
    missing = len(migrations()) - schema_version(session)
    if missing < 0:
        raise SettingsError(["the database was written by a newer version of auditrace: upgrade this process"])
    return missing


def migrate(session: Session) -> Sequence[str]:
    """Apply what is missing and return the names of the steps that were applied; none when up to date.

    Killed at any point, the database holds whole steps only. Processes that migrate at once wait for each other, and
    a step that would make writers wait for longer than the session's lock timeout fails instead and can be repeated.

    Raises:
        SettingsError: the server is not one that this version works on, or a newer version has been here.
        TryLaterError: the database cannot be changed now.
    """
    _check_server(session)
    applied = [step.name for step in migrations() if schema_version(session) < step.number and _apply(session, step)]
    missing_steps(session)
    with translated():
        session.execute(b"SELECT make_record_partitions(ledger_now_ns())")
    return applied


def _apply(session: Session, step: Migration) -> bool:
    with translated(), session.transaction():
        session.execute(_LOCK)
        ((has_steps,),) = session.execute(_HAS_STEPS).fetchall()
        if not has_steps:
            session.execute(_MAKE_STEPS)
        ((version,),) = session.execute(_LAST_STEP).fetchall()
        if version >= step.number:
            return False
        session.execute(step.sql.encode())
        session.execute(_ADD_STEP, {"number": step.number, "name": step.name})
    return True


def _check_server(session: Session) -> None:
    if session.info.server_version < _OLDEST_SERVER:
        raise SettingsError([f"this is PostgreSQL {session.info.server_version // 10_000}: 15 or newer is needed"])
    with translated():
        ((encoding,),) = session.execute(b"SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        raise SettingsError([f"the database is encoded in {encoding}: make one with ENCODING 'UTF8'"])
