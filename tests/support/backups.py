"""Sets a ledger back to what it was, under the processes that work on it, as a restore from a backup does."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.support.both_stores import Store
from tests.support.postgres_stores import PostgresStore

_TABLES: Final = (
    *("audit_streams", "audit_envelopes", "audit_records", "audit_record_keys", "delivery_cursors", "leases"),
    *("signing_keys", "audit_checkpoints", "audit_anchors", "refused_streams"),
)


def back_up(store: Store, folder: Path) -> Callable[[], None]:
    """Back a ledger up, and return what sets it back to that; the clock goes on."""
    return _backed_up_rows(store) if isinstance(store, PostgresStore) else _backed_up_file(store.path, folder)


def _backed_up_file(path: Path, folder: Path) -> Callable[[], None]:
    backup = folder / "backup.db"
    _copy(path, backup)
    return lambda: _copy(backup, path)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)


def _backed_up_rows(store: PostgresStore) -> Callable[[], None]:
    for table in _TABLES:
        store.execute(f"CREATE TABLE backup_{table} AS TABLE {table}")

    def restore() -> None:
        with store.attacking() as session:
            for table in _TABLES:
                session.execute(f"DELETE FROM {table}")
                session.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM backup_{table}")

    return restore
