"""Settings of a server, database or role that change what statements mean, each at its most hostile value."""

from collections.abc import Mapping
from typing import Final

import psycopg

from tests.support.postgres import SUPERUSER

HOSTILE: Final[Mapping[str, str]] = {
    "array_nulls": "off",
    "backslash_quote": "on",
    "bytea_output": "'escape'",
    "check_function_bodies": "off",
    "client_encoding": "'LATIN1'",
    "client_min_messages": "'debug1'",
    "datestyle": "'SQL, DMY'",
    "default_tablespace": "'nowhere'",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "'serializable'",
    "exit_on_error": "on",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "'1s'",
    "idle_session_timeout": "'1s'",
    "intervalstyle": "'sql_standard'",
    "lock_timeout": "'1ms'",
    "plpgsql.variable_conflict": "'use_column'",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "search_path": "evil, pg_catalog, public",
    "session_replication_role": "'replica'",
    "standard_conforming_strings": "off",
    "statement_timeout": "'1s'",
    "synchronous_commit": "off",
    "timezone": "'Asia/Kathmandu'",
    "transaction_timeout": "'1s'",
    "transform_null_equals": "on",
    "xmloption": "'document'",
}
# Functions that this path finds before the server's own. Each returns something else than the one of its name.
_EVIL: Final = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$;
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT $2 $$;
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'origin' $$;
CREATE FUNCTION evil.replace(text, text, text) RETURNS text LANGUAGE sql AS $$ SELECT '{}' $$;
CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION evil.hashtext(text) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2000-01-01'::timestamptz $$;
CREATE TABLE evil.audit_records (nothing int);
CREATE TABLE evil.jobs (nothing int);
"""


def make_evil_schema(url: str) -> None:
    """Add a schema whose functions and tables have the names of the server's and of the ledger's."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(_EVIL.encode())


def set_hostile(url: str, level: str, *names: str) -> None:
    """Set these at the level of the `database`, or of the `role` in it, for the sessions that follow."""
    with psycopg.connect(url, autocommit=True) as session:
        known = {name.lower() for (name,) in session.execute("SELECT name FROM pg_settings").fetchall()}
        target = f"DATABASE {session.info.dbname}"
        if level == "role":
            target = f"ROLE {SUPERUSER} IN {target}"
        for name in names:
            if name in known or "." in name:
                session.execute(f"ALTER {target} SET {name} = {HOSTILE[name]}".encode())
