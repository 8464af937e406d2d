"""Outages in which a real ledger can be read but not written, for each store."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any, TypeAlias

import psycopg

from service.errors import LedgerUnavailableError
from service.store.sqlite.connection import connect
from tests.support.both_stores import POSTGRES, SQLITE, Store
from tests.support.stores import connection_of

Outage: TypeAlias = Callable[[Store, Any], AbstractContextManager[None]]
"""Lasts as long as its block, for the lane of a store that it is given."""

_HARDLY_WAIT = b"SELECT set_config('lock_timeout', '10ms', false)"
_READ_ONLY = """
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {}', current_database());
END $$
"""


@contextmanager
def _disk_full(_: Store, lane: Any) -> Iterator[None]:
    """SQLite may not add a page to the file, and so gives the error of a full disk."""
    ((pages,),) = _on(lane, "PRAGMA page_count")
    _on(lane, f"PRAGMA max_page_count = {pages}")
    with suppress(LedgerUnavailableError):
        # Pages that were left free are used up, so that the next record needs one more.
        while True:
            _on(lane, "INSERT INTO audit_envelopes (resource, scope) VALUES (randomblob(2000), x'')")
    yield
    _on(lane, "PRAGMA max_page_count = 1073741823")


@contextmanager
def _mounted_read_only(_: Store, lane: Any) -> Iterator[None]:
    """The lane's connection may not write, as on a file system that was mounted read-only."""
    connection = lane.submit(connection_of).result()
    connection.execute("PRAGMA query_only = 1")
    yield
    connection.execute("PRAGMA query_only = 0")


@contextmanager
def _file_locked(store: Store, lane: Any) -> Iterator[None]:
    """Another process holds the write lock, for longer than the lane waits."""
    _on(lane, "PRAGMA busy_timeout = 1")
    with _held(store, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def _no_primary(store: Store, lane: Any) -> Iterator[None]:
    """The lane's session is gone, and the server takes no writes, as clients of a standby see it."""
    assert store.kind == POSTGRES
    ((pid,),) = _on(lane, b"SELECT pg_backend_pid()")
    with psycopg.connect(store.url, autocommit=True) as administrator:
        administrator.execute(_READ_ONLY.format("on").encode())
        administrator.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
        yield
        administrator.execute(_READ_ONLY.format("off").encode())
    # The lane's next stream opens with a record of its own, which must not be counted as a request's.
    lane.submit(lambda _: None).result()


@contextmanager
def _table_locked(store: Store, lane: Any) -> Iterator[None]:
    """Another session lets everybody read the records and nobody add one, for longer than the lane waits."""
    _on(lane, _HARDLY_WAIT)
    with _held(store, "LOCK TABLE audit_records IN EXCLUSIVE MODE"):
        yield


OUTAGES: Mapping[tuple[str, str], tuple[Outage, str]] = {
    (SQLITE, "disk full"): (_disk_full, "ledger_unavailable"),
    (SQLITE, "read-only"): (_mounted_read_only, "ledger_unavailable"),
    (SQLITE, "locked"): (_file_locked, "ledger_busy"),
    (POSTGRES, "read-only"): (_no_primary, "ledger_unavailable"),
    (POSTGRES, "locked"): (_table_locked, "ledger_busy"),
}
"""The outages of each store, and the class of the errors that they cause. A full disk of PostgreSQL is a fault test."""


def cursors_locked(store: Store, outbox: Any) -> AbstractContextManager[None]:
    """The records that this relay holds can be read and sent, but another session keeps their cursors from moving."""
    return _locked_out(store, outbox._connection, "SELECT FROM delivery_cursors FOR UPDATE")


def leases_locked(store: Store, writer: Any) -> AbstractContextManager[None]:
    """No checkpoint writer can take or renew its lease, for longer than this one waits."""
    return _locked_out(store, writer._writing, "LOCK TABLE leases IN EXCLUSIVE MODE")


@contextmanager
def _locked_out(store: Store, connection: Any, lock: str) -> Iterator[None]:
    """Another session holds PostgreSQL's `lock`, or SQLite's one for writes, and this connection hardly waits."""
    if store.kind == SQLITE:
        connection._connection.execute("PRAGMA busy_timeout = 10")
    else:
        connection._with_session(lambda session: session.execute(_HARDLY_WAIT))
    with _held(store, "BEGIN IMMEDIATE" if store.kind == SQLITE else lock):
        yield


@contextmanager
def _held(store: Store, lock: str) -> Iterator[None]:
    """Hold a lock in another session's transaction; an SQLite file has only the one that a transaction begins with."""
    opened = connect(store.path) if store.kind == SQLITE else psycopg.connect(store.url)
    with closing(opened) as other:
        other.execute(lock)
        yield
        other.execute("ROLLBACK")


def _on(lane: Any, sql: str | bytes) -> list[tuple[Any, ...]]:
    """Run a statement on the lane's own connection, in a transaction of the lane."""
    return lane.submit(lambda transaction: connection_of(transaction).execute(sql).fetchall()).result()
