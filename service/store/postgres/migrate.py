"""Migrates a database to the newest schema: numbered, forward-only steps, each in a transaction of its own."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from service.errors import SettingsError
from service.store.migrations import Migration, missing_of, steps_of
from service.store.postgres.connection import Session, translated

MIGRATIONS: Final = steps_of("service.store.postgres")

_OLDEST_SERVER: Final = 150_000
_LOCK: Final = b"SELECT pg_advisory_xact_lock(hashtext('auditrace migrations'))"
# This reads the catalogue, not the session's cache of it, which may be stale after a step of another process.
_HAS_TABLE: Final = b"""
SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = %(name)s)
"""
_MAKE_STEPS: Final = b"""
CREATE TABLE schema_steps (number bigint PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""
_RELATION: Final = re.compile(r"^CREATE (?:UNIQUE )?(?:TABLE|INDEX|VIEW) (\w+)", re.MULTILINE)
_TAKEN: Final = b"""
SELECT current_schema(), coalesce(array_agg(relname::text ORDER BY relname), '{}')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relname = ANY(%(names)s)
"""
_LAST_STEP: Final = b"SELECT coalesce(max(number), 0) FROM schema_steps"
_ADD_STEP: Final = b"INSERT INTO schema_steps (number, name) VALUES (%(number)s, %(name)s)"
_ADDITIONS: Final = b"SELECT name FROM schema_additions"
_ADD_ADDITION: Final = b"INSERT INTO schema_additions (name) VALUES (%(name)s)"


def schema_version(session: Session) -> int:
    """Return the number of the last step, without additions, that the database has seen; 0 if it has seen none."""
    with translated():
        if not _has_table(session, "schema_steps"):
            return 0
        ((version,),) = session.execute(_LAST_STEP).fetchall()
    return int(version)


def additions(session: Session) -> Collection[str]:
    """Return the names of the additions that the database has seen."""
    with translated():
        if not _has_table(session, "schema_additions"):
            return ()
        return {name for (name,) in session.execute(_ADDITIONS).fetchall()}


def missing_steps(session: Session) -> Sequence[Migration]:
    """Return the steps that the database has not seen yet.

    Raises:
        SettingsError: this version does not work on the server, a newer version changed the schema, or another program
            uses the names of the ledger's tables.
    """
    _check_server(session)
    version = schema_version(session)
    if version == 0:
        _require_free_names(session)
    return missing_of(MIGRATIONS, version, additions(session))


def _require_free_names(session: Session) -> None:
    names = [name for step in MIGRATIONS for name in _RELATION.findall(step.sql)]
    with translated():
        ((schema, taken),) = session.execute(_TAKEN, {"names": names}).fetchall()
    # Another process may have applied the first step since the version was read: then the ledger itself has the names.
    if taken and schema_version(session) == 0:
        to_do = "give the ledger a database of its own, or a schema by the role's search_path"
        raise SettingsError([f"the schema {schema} has {', '.join(taken)} of another program: {to_do}"])


def migrate(session: Session) -> Sequence[str]:
    """Apply the missing steps and return their names; none if the schema is up to date.

    If the process is killed at any point, the database holds whole steps only. Processes that migrate at the same time
    wait for each other. A step that would make writers wait for longer than the session's lock timeout fails instead,
    and can be repeated.

    Raises:
        SettingsError: this version does not work on the server, or a newer version changed the schema.
        TryLaterError: the database cannot be changed now.
    """
    applied = [step.name for step in missing_steps(session) if _apply(session, step)]
    with translated():
        session.execute(b"SELECT make_record_partitions(ledger_now_ns())")
    return applied


def _apply(session: Session, step: Migration) -> bool:
    with translated(), session.transaction():
        session.execute(_LOCK)
        # Another process may have applied it meanwhile.
        if step not in missing_steps(session):
            return False
        if not _has_table(session, "schema_steps"):
            session.execute(_MAKE_STEPS)
        session.execute(step.sql.encode())
        session.execute(_ADD_ADDITION if step.is_addition else _ADD_STEP, {"number": step.number, "name": step.name})
    return True


def _has_table(session: Session, name: str) -> bool:
    ((has_table,),) = session.execute(_HAS_TABLE, {"name": name}).fetchall()
    return bool(has_table)


def _check_server(session: Session) -> None:
    if session.info.server_version < _OLDEST_SERVER:
        raise SettingsError([f"this is PostgreSQL {session.info.server_version // 10_000}: 15 or newer is needed"])
    with translated():
        ((encoding,),) = session.execute(b"SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        raise SettingsError([f"the database is encoded in {encoding}: make one with ENCODING 'UTF8'"])
