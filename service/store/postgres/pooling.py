"""Finds out whether a connection has a session of the server to itself; behind a pooler it may have none.

Advisory locks, LISTEN, settings and prepared statements belong to a session. A pooler in transaction or statement mode
lends a session to a connection for one transaction only, so that all of these are lost, or belong to another client.
"""

from collections.abc import Callable
from typing import Any, Final

import psycopg

from service.errors import SettingsError

TIMEOUT_S: Final = 10.0
_LENT: Final = (
    "a pooler lends this process a session of PostgreSQL for one transaction at a time, and the ledger needs sessions "
    "of its own (for advisory locks, LISTEN, settings and prepared statements): set pool_mode = session in the pooler, "
    "or let AUDITRACE_DATABASE name the server itself"
)
# The errors of a statement that was prepared in another session.
OF_OTHER_SESSIONS: Final = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)


def require_own_session(
    connection: psycopg.Connection[tuple[Any, ...]], connect_again: Callable[[], psycopg.Connection[tuple[Any, ...]]]
) -> None:
    """Raise unless a new connection, on which no transaction is open, has a session to itself.

    Without a pooler this takes one query: the server names the same process in its greeting and in the answer. A pooler
    greets with a number of its own. Then a second connection sends a notification for which the first one listens. The
    first one sends no query while it waits. The notification arrives only if the session belongs to the first one,
    because a pooler does not pass it on from a session that is lent to no connection.

    Args:
        connection: in autocommit.
        connect_again: opens another connection of the same kind, which is closed here.

    Raises:
        SettingsError: it has none.
    """
    pid = _pid(connection)
    greeted = connection.info.backend_pid
    if pid == greeted:
        return
    channel = f"auditrace_{pid}_{greeted & 0xFFFFFFFF}"
    connection.execute(f"LISTEN {channel}".encode())
    with connect_again() as other:
        ((other_pid,),) = other.execute(
            b"SELECT pg_catalog.pg_backend_pid() FROM pg_catalog.pg_notify(%s, '')", [channel]
        ).fetchall()
    keeps = other_pid != pid and bool(list(connection.notifies(timeout=TIMEOUT_S, stop_after=1)))
    connection.execute(f"UNLISTEN {channel}".encode())
    if not keeps:
        raise SettingsError([_LENT])


def _pid(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    ((pid,),) = connection.execute(b"SELECT pg_catalog.pg_backend_pid()").fetchall()
    return int(pid)
