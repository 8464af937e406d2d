"""Compares the schema of a database with the one that the migrations make, to find, for example, a missing trigger."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
import psycopg

from service.errors import SettingsError
from service.store.postgres.connection import Session, connect, translated
from service.store.postgres.migrate import MIGRATIONS
from service.store.queries import load_queries

_SQL: Final = {name: text.encode() for name, text in load_queries("service.store.postgres.reconciliation").items()}
# Other programs may have objects of these kinds in the schema, but no objects that belong to a table of the ledger.
_MAY_BE_OTHERS: Final = frozenset({"table", "view", "sequence", "function"})


class _What(msgspec.Struct, frozen=True, order=True):
    kind: str
    table: str
    """The table's name; all partitions of records have the same one."""
    name: str

    def of(self, table: str) -> str:
        """Return the object's name, as an object of this table."""
        return f"{self.kind} {self.name}" if self.kind in _MAY_BE_OTHERS else f"{self.kind} {self.name} of {table}"


_Definitions: TypeAlias = Mapping[str, Mapping[_What, str]]
"""The definitions of objects, by the name of their table; functions have none."""


def differences(session: Session, url: str) -> Iterator[tuple[str, str]]:
    """Yield every object that is missing, is not as the migrations make it, or was added to a table of the ledger.

    Args:
        session: in the transaction of the reconciliation.
        url: the same database; the schema is made once more in it, and rolled back.

    Raises:
        SettingsError: this role may not make a schema.
        TryLaterError: the database cannot be used for this now.
    """
    expected = {next(iter(objects)).table: objects for objects in _as_migrated(url).values()}
    found = _definitions(session)
    tables = {table: next(iter(objects)).table for table, objects in found.items()}
    for shown in sorted(expected.keys() - set(tables.values())):
        yield f"table {shown}", "it is missing"
    for table, shown in sorted(tables.items()):
        yield from _differences(table, found[table], expected.get(shown, {}))


def _differences(table: str, found: Mapping[_What, str], expected: Mapping[_What, str]) -> Iterator[tuple[str, str]]:
    for what in sorted(expected.keys() - found.keys()):
        yield what.of(table), "it is missing"
    for what in sorted(found.keys() - expected.keys()):
        if expected and what.kind not in _MAY_BE_OTHERS:
            yield what.of(table), "no migration makes it"
    for what in sorted(found.keys() & expected.keys()):
        if found[what] != expected[what]:
            yield what.of(table), "it is not as the migrations make it"


def _as_migrated(url: str) -> _Definitions:
    fresh = connect(url, statement_timeout="0", idle_timeout="0")
    try:
        with translated(), fresh.transaction(force_rollback=True):
            try:
                fresh.execute(_SQL["begin_fresh_schema"])
            except psycopg.errors.InsufficientPrivilege as error:
                problem = "the schema is compared with one that is made and rolled back: use the role that migrates"
                raise SettingsError([problem]) from error
            for step in MIGRATIONS:
                fresh.execute(step.sql.encode())
            fresh.execute(_SQL["partition_of_now"])
            return _definitions(fresh)
    finally:
        fresh.close()


def _definitions(session: Session) -> _Definitions:
    found: dict[str, dict[_What, str]] = defaultdict(dict)
    for kind, shown, name, table, definition in session.execute(_SQL["schema"]).fetchall():
        found[table][_What(kind, shown, name)] = definition
    return found
