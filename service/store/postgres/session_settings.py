"""The settings of a session on which the meaning of statements depends, whatever server, database, role or URL say.

Each is set in the session itself, so that a reload of the server's configuration does not change it.
"""

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Identifier

from service.errors import SettingsError

ALWAYS: Final[Mapping[str, str]] = {
    # The meaning of texts.
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    # The text form of values.
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # What a transaction sees and may do. With `row_security` off, a policy that would hide rows is an error.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "row_security": "off",
    "restrict_nonsystem_relation_kind": "",
    # Settings that could end a session or a transaction that is still needed.
    "exit_on_error": "off",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}
# Only settings that the server knows are set: that depends on its version.
_APPLY: Final = b"""
SELECT set_config(name, value, false)
FROM pg_settings JOIN unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value) USING (name)
"""
_SETTLE_COMMIT: Final = b"""
SELECT set_config(
    'synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
    false
)
"""
# Not every role may set it. A session of a role that may not is refused unless it is `origin` already.
_SETTLE_TRIGGERS: Final = b"""
SELECT CASE
    WHEN has_parameter_privilege('session_replication_role', 'SET')
        THEN set_config('session_replication_role', 'origin', false)
    ELSE current_setting('session_replication_role')
END
"""
_PATH: Final = b"SELECT pg_catalog.current_schemas(false)"
_HOLDS_LEDGER: Final = b"""
SELECT coalesce(array_agg(schemaname), '{}') FROM pg_tables
WHERE schemaname = ANY(%(path)s) AND tablename = 'schema_steps'
"""
_NO_SCHEMA: Final = (
    "search_path names no schema of this database that this role may use, so that there is no place for the ledger: "
    "ALTER ROLE or ALTER DATABASE … SET search_path"
)
_TRIGGERS_OFF: Final = (
    "so that the triggers and constraints of the ledger do not hold, and this role may not change it: "
    "ALTER ROLE or ALTER DATABASE … RESET session_replication_role"
)


def settle(session: psycopg.Connection[tuple[Any, ...]], own: Mapping[str, str]) -> None:
    """Make all settings in a new session, on which no transaction is open: all of them, or none.

    A pooler that begins to lend sessions may lend this one to another client between two statements. In one transaction
    it cannot do that, so no client gets a session with a part of the settings.

    Args:
        session: in autocommit.
        own: further settings of this session, by name.

    Raises:
        SettingsError: the session cannot get the settings that the ledger needs; the text says what to change.
    """
    with session.transaction():
        _settle(session, own)


def _settle(session: psycopg.Connection[tuple[Any, ...]], own: Mapping[str, str]) -> None:
    ((path,),) = session.execute(_PATH).fetchall()
    # From here on, no function or table in another schema can hide one of the server.
    session.execute(b"SET search_path = pg_catalog, pg_temp")
    wanted = {**ALWAYS, **own}
    session.execute(_APPLY, {"names": list(wanted), "values": list(wanted.values())})
    session.execute(_SETTLE_COMMIT)
    ((role,),) = session.execute(_SETTLE_TRIGGERS).fetchall()
    if role != "origin":
        raise SettingsError([f"session_replication_role is {role}, {_TRIGGERS_OFF}"])
    _settle_path(session, [name for name in path if not name.startswith("pg_")])


def _settle_path(session: psycopg.Connection[tuple[Any, ...]], path: list[str]) -> None:
    """Put the schema of the ledger first in the path: the first one that holds a ledger, or the first of all."""
    if not path:
        raise SettingsError([_NO_SCHEMA])
    ((holding,),) = session.execute(_HOLDS_LEDGER, {"path": path}).fetchall()
    path.sort(key=lambda name: name not in holding)
    # The server's schema comes first unless the path names it. Temporary tables come last because the path names them.
    session.execute(SQL("SET search_path = {}, pg_temp").format(SQL(", ").join(map(Identifier, path))))
