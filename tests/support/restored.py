"""Backups of the tests' ledgers, and what a restore makes of them: the same ledger as it was, an hour later."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest

from tests.support.both_stores import Store
from tests.support.postgres import PostgresServer
from tests.support.postgres_clocks import LedgerClock
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore

_TABLES = (
    *("audit_streams", "audit_envelopes", "audit_records", "audit_record_keys", "delivery_cursors"),
    *("signing_keys", "audit_checkpoints", "audit_anchors"),
)
"""Those of PostgreSQL that these tests write, but for the leases."""


def backed_up(store: Store, folder: Path, request: pytest.FixtureRequest, instance: int = 3) -> Callable[[], Store]:
    """Back up a ledger as it is now, and return what restores it, as another `instance`."""
    if isinstance(store, SqliteStore):
        return _copied_file(store, folder, instance)
    # Asked for here, so that tests of SQLite alone start no server.
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return _copied_rows(store, folder, server, instance)


def _copied_file(store: SqliteStore, folder: Path, instance: int) -> Callable[[], SqliteStore]:
    backup = Path(mkdtemp(dir=folder)) / "backup.db"
    store.execute("VACUUM INTO ?", str(backup))

    def restore() -> SqliteStore:
        restored = Path(mkdtemp(dir=folder))
        shutil.copy(backup, restored / "ledger.db")
        store.clock.advance(3600)
        return SqliteStore(restored, store.clock, instance)

    return restore


def _copied_rows(store: PostgresStore, folder: Path, server: PostgresServer, instance: int) -> Callable[[], Store]:
    with psycopg.connect(store.url) as session:
        rows = {
            table: session.execute(f"SELECT row_to_json({table})::text FROM {table}".encode()).fetchall()
            for table in _TABLES
        }

    def restore() -> Store:
        restored = PostgresStore(server, folder, instance=instance)
        assert isinstance(restored.clock, LedgerClock)
        with psycopg.connect(restored.url) as session:
            session.execute("SET session_replication_role = replica")
            session.execute("SELECT make_record_partitions(%s)", [store.clock()])
            for table, of_table in rows.items():
                insert = (
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(NULL::{table}, %s)"
                )
                for (row,) in of_table:
                    session.execute(insert.encode(), [row])
            session.execute("SELECT setval('audit_envelopes_envelope_id_seq', 1000)")
        restored.clock.advance((store.clock() - restored.clock()) / 1e9 + 3600)
        return restored

    return restore
