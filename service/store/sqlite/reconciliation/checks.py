"""The checks that are SQLite's own, and how all of them are carried out on a file, in one snapshot."""

import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from service.errors import TryLaterError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.queries import Execute, Row, load_queries
from service.store.reconciling import DamagedError, Wrong, reconciled
from service.store.sqlite.connection import translate
from service.store.sqlite.migrate import MIGRATIONS, additions, migrate, schema_version
from service.store.sqlite.snapshot import records_in
from service.store.sqlite.transaction import executing
from service.store.sqlite.untouched import Reading, in_use
from service.store.steps import require_same
from telemetry.audit.verify import Found

SQL: Final = load_queries("service.store.sqlite.reconciliation")


class Examined(msgspec.Struct, frozen=True):
    """What is looked at: a file, in a transaction that is one snapshot."""

    connection: sqlite3.Connection
    secret: DeploymentSecret

    @property
    def execute(self) -> Execute:
        """Executes statements of the store."""
        return executing(self.connection)

    def rows(self, name: str) -> Iterator[Row]:
        """Yield the rows of a statement."""
        yield from self.connection.execute(SQL[name])

    def records(self) -> Iterator[Found]:
        """Yield every record."""
        return records_in(self.connection, "database")

    @contextmanager
    def attempt(self) -> Generator[None]:
        """Tell damage from a file that cannot be read now."""
        try:
            yield
        except sqlite3.Error as error:
            translation = translate(error)
            # The driver's own errors have no code: that a text is not UTF-8, for one.
            if isinstance(translation, TryLaterError) and hasattr(error, "sqlite_errorcode"):
                raise translation from error
            raise DamagedError(str(error)) from error


def reconcile(path: Path, secret: DeploymentSecret, reading: Reading = in_use) -> Iterator[Discrepancy]:
    """Yield everything that is wrong in a database, check by check, each with its place; nothing is changed.

    One snapshot is looked at, so that processes which write meanwhile neither disturb nor are disturbed. A check that
    damage keeps from being carried out is a discrepancy too.

    Raises:
        SettingsError: the database needs a migration, or belongs to another ledger secret.
        TryLaterError: the database cannot be read now.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        require_same(MIGRATIONS, schema_version(connection), additions(connection))
        yield from reconciled(Examined(connection, secret), _OWN)


def _integrity(examined: Examined) -> Wrong:
    for (text,) in examined.rows("integrity_check"):
        if text != "ok":
            yield "database", str(text)


def _foreign_keys(examined: Examined) -> Wrong:
    for table, row, parent, _number in examined.rows("foreign_key_check"):
        yield f"table {table} row {'?' if row is None else row}", f"it names a row of {parent} that does not exist"


def _schema(examined: Examined) -> Wrong:
    """Tables, triggers and indices are those that the migrations make: a trigger that is gone guards nothing."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh)
        expected = _objects(fresh)
    finally:
        fresh.close()
    found = _objects(examined.connection)
    for what in sorted(expected.keys() - found.keys()):
        yield what, "it is missing"
    for what in sorted(found.keys() - expected.keys()):
        yield what, "no migration makes it"
    for what in sorted(found.keys() & expected.keys()):
        if found[what] != expected[what]:
            yield what, "it is not as the migrations make it"


def _objects(connection: sqlite3.Connection) -> Mapping[str, str]:
    return {f"{kind} {name}": text for kind, name, text in connection.execute(SQL["schema"])}


_OWN: Final[Mapping[str, Callable[[Examined], Wrong]]] = {
    "integrity": _integrity,
    "schema": _schema,
    "foreign_keys": _foreign_keys,
}
