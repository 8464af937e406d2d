"""The checks that only PostgreSQL has, and how all checks are carried out on a database, in one snapshot."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

import psycopg
from psycopg import errors

from service.errors import SettingsError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.migrations import require_same
from service.store.postgres.connection import Session, place_of, translate
from service.store.postgres.migrate import MIGRATIONS, additions, schema_version
from service.store.postgres.reconciliation.schema import differences
from service.store.postgres.snapshot import snapshot
from service.store.postgres.statements import executing
from service.store.queries import Row, load_queries
from service.store.reconciling import Contradictions, DamagedError, Examined, reconciled

SQL: Final[Mapping[str, bytes]] = {
    name: text.encode() for name, text in load_queries("service.store.postgres.reconciliation").items()
}

_ROWS_AT_ONCE: Final = 500
_PAYLOADS_AT_ONCE: Final = 4
_CORRUPT: Final = (psycopg.DataError, psycopg.InternalError)


class _ExaminedDatabase(Examined):
    driver_error = psycopg.Error

    def __init__(self, session: Session, url: str, secret: DeploymentSecret) -> None:
        super().__init__(executing(session), secret, place_of(url))
        self._session = session
        self._url = url

    def rows(self, name: str) -> Iterator[Row]:
        with self._session.cursor(f"{name}_examined", binary=True) as cursor:
            cursor.itersize = _PAYLOADS_AT_ONCE if name == "contents" else _ROWS_AT_ONCE
            cursor.execute(SQL[name])
            yield from cursor

    def _savepoint(self) -> AbstractContextManager[object]:
        return self._session.transaction()

    def _meaning(self, error: Exception) -> Exception:
        match error:
            case errors.InsufficientPrivilege():
                return SettingsError([f"{_text(error)}: use the role that migrates"])
            case psycopg.DataError() | psycopg.InternalError() | psycopg.ProgrammingError():
                # A missing table or column gives the last one.
                return DamagedError(_text(error))
            case psycopg.Error():
                return translate(error)
            case _:
                return error

    def integrity(self) -> Contradictions:
        """Yield contradictions between records and keys, and, with the extension `amcheck`, indices and tables."""
        yield from self.rows("keys_of_records")
        ((has_amcheck,),) = self._session.execute(SQL["has_amcheck"]).fetchall()
        for index, number in self._session.execute(SQL["indices"]).fetchall() if has_amcheck else ():
            try:
                with self._session.transaction():
                    self._session.execute(SQL["check_index"], {"index": number})
            except _CORRUPT as error:
                yield f"index {index}", _text(error)

    def schema(self) -> Contradictions:
        yield from differences(self._session, self._url)

    def foreign_keys(self) -> Contradictions:
        for table, parent, statement in self._session.execute(SQL["references"]).fetchall():
            for (row,) in self._session.execute(statement.encode()).fetchall():
                yield _orphan(table, parent, row)
        for table, parent, row in self.rows("references_of_records"):
            yield _orphan(table, parent, row)


def reconcile(url: str, secret: DeploymentSecret) -> Iterator[Discrepancy]:
    """Yield the discrepancies that `reconciled` finds in the database."""
    with snapshot(url, is_long=True) as session:
        yield from reconcile_in(session, url, secret)


def reconcile_in(session: Session, url: str, secret: DeploymentSecret) -> Iterator[Discrepancy]:
    """Yield the discrepancies in what an open transaction sees, including its own changes."""
    require_same(MIGRATIONS, schema_version(session), additions(session))
    yield from reconciled(_ExaminedDatabase(session, url, secret))


def _orphan(table: str, parent: str, row: str) -> tuple[str, str]:
    return f"table {table} row {row}", f"it names a row of {parent} that does not exist"


def _text(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())
