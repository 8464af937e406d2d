"""What is asked of a file before or without opening its ledger: is it empty, which keys sign, what was signed."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from service.ports import LastCheckpoint, RefusedStream, RegisteredKey
from service.secrets import DeploymentSecret
from service.store.anchors import last_stored
from service.store.signing_keys import registered_keys
from service.store.sqlite.transaction import SQL, executing
from service.store.sqlite.untouched import Reading, in_use


def keys_of(path: Path, secret: DeploymentSecret, reading: Reading = in_use) -> Sequence[RegisteredKey]:
    """Return all keys of a database, as `registered_keys` does; none of one that was not migrated yet."""
    with reading(path) as connection:
        return registered_keys(executing(connection), secret) if _has_table(connection, "signing_keys") else ()


def is_empty(path: Path, reading: Reading = in_use) -> bool:
    """True while nothing was committed to the database, and no key registered: only then may keys be made for it."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with reading(path) as connection:
        return not any(
            _has_table(connection, table) and connection.execute(SQL[has_rows]).fetchone()[0]
            for table, has_rows in (("signing_keys", "has_signed"), ("audit_streams", "has_streams"))
        )


def last_and_refused(path: Path, reading: Reading = in_use) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
    """Return the last checkpoint of a database, None before the first, and the streams that none signs over."""
    with reading(path) as connection:
        last = last_stored(executing(connection))
        refused = [RefusedStream(*row) for row in connection.execute(SQL["refused_streams"])]
    return None if last is None else LastCheckpoint(last.number, last.observed_ns), refused


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute(SQL["has_table"], {"name": name}).fetchone() is not None
