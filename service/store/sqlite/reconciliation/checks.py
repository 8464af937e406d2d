"""The checks that only SQLite has, and how all checks are carried out on a file, in one snapshot."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from service.errors import TryLaterError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.migrations import require_same
from service.store.queries import Row, load_queries
from service.store.reconciling import Contradictions, DamagedError, Examined, reconciled
from service.store.sqlite.connection import translate
from service.store.sqlite.migrate import MIGRATIONS, additions, migrate, schema_version
from service.store.sqlite.snapshot import snapshot
from service.store.sqlite.statements import executing
from service.store.sqlite.untouched import OpenFile, in_use

SQL: Final = load_queries("service.store.sqlite.reconciliation")


class _ExaminedFile(Examined):
    driver_error = sqlite3.Error

    def __init__(self, connection: sqlite3.Connection, secret: DeploymentSecret) -> None:
        super().__init__(executing(connection), secret, "database")
        self._connection = connection

    def rows(self, name: str) -> Iterator[Row]:
        yield from self._connection.execute(SQL[name])

    def _meaning(self, error: Exception) -> Exception:
        # Errors of the driver itself, such as a text that is not UTF-8, have no code.
        if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
            translation = translate(error)
            if isinstance(translation, TryLaterError):
                return translation
        return DamagedError(str(error))

    def integrity(self) -> Contradictions:
        for (text,) in self.rows("integrity_check"):
            if text != "ok":
                yield "database", str(text)

    def foreign_keys(self) -> Contradictions:
        for table, row, parent, _number in self.rows("foreign_key_check"):
            yield f"table {table} row {'?' if row is None else row}", f"it names a row of {parent} that does not exist"

    def schema(self) -> Contradictions:
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        try:
            migrate(fresh)
            expected = _objects(fresh)
        finally:
            fresh.close()
        found = _objects(self._connection)
        for what in sorted(expected.keys() - found.keys()):
            yield what, "it is missing"
        for what in sorted(found.keys() - expected.keys()):
            yield what, "no migration makes it"
        for what in sorted(found.keys() & expected.keys()):
            if found[what] != expected[what]:
                yield what, "it is not as the migrations make it"


def reconcile(path: Path, secret: DeploymentSecret, reading: OpenFile = in_use) -> Iterator[Discrepancy]:
    """Yield the discrepancies that `reconciled` finds in the file."""
    with snapshot(path, reading) as connection:
        require_same(MIGRATIONS, schema_version(connection), additions(connection))
        yield from reconciled(_ExaminedFile(connection, secret))


def _objects(connection: sqlite3.Connection) -> Mapping[str, str]:
    return {f"{kind} {name}": text for kind, name, text in connection.execute(SQL["schema"])}
