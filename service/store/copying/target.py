"""The PostgreSQL database into which a ledger is copied, in one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import psycopg

from service.errors import SettingsError
from service.ports import Discrepancy
from service.secrets import DeploymentSecret
from service.store.postgres.connection import connect, translated
from service.store.postgres.reconciliation import reconcile_in
from service.store.queries import Row, load_queries

SQL: Final = {name: text.encode() for name, text in load_queries("service.store.copying").items()}

_WITH_PAYLOAD: Final = frozenset({"inputs", "artifacts"})


class TargetDatabase:
    """An empty ledger that is filled; what is not committed at the end of the block is rolled back.

    Raises (on opening):
        LedgerUnavailableError: no connection can be opened.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = connect(url, statement_timeout="0", idle_timeout="0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def begin(self, months: Sequence[int]) -> None:
        """Make partitions for records of these times, and begin the transaction.

        Raises:
            SettingsError: the ledger is not empty, or this role may not migrate.
        """
        session = self._session
        with translated():
            self._require_empty()
            for moment_ns in months:
                # Each is committed at once, because its lock would block the check of the schema.
                session.execute(SQL["target_partitions"], {"moment_ns": moment_ns})
            session.execute(b"BEGIN")
            session.execute(SQL["target_lock"])
            self._require_empty()
            try:
                session.execute(SQL["target_open"])
            except psycopg.errors.InsufficientPrivilege as error:
                raise SettingsError(
                    ["the target is filled by the role that migrates: name that one in --to"]
                ) from error

    def write(self, table: str, rows: Iterable[Row]) -> int:
        """Write the rows of a table, and return how many there are."""
        count = 0
        with translated(), self._session.cursor() as cursor, cursor.copy(SQL[f"write_{table}"]) as copying:
            for count, row in enumerate(rows, start=1):  # noqa: B007 - the last count is returned
                copying.write_row(row)
        return count

    def finish(self) -> None:
        """Check every constraint, and enable the triggers of the ledger again."""
        with translated():
            self._session.execute(SQL["target_close"])
            self._session.execute(SQL["target_go_on"])

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table, in the same order as the source."""
        with translated(), self._session.cursor(f"read_{table}", binary=True) as cursor:
            cursor.itersize = 4 if table in _WITH_PAYLOAD else 500
            cursor.execute(SQL[f"read_{table}"])
            yield from cursor

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the data that would be committed."""
        with translated():
            yield from reconcile_in(self._session, self._url, secret)

    def commit(self) -> None:
        """Commit."""
        with translated():
            self._session.execute(b"COMMIT")

    def _require_empty(self) -> None:
        ((is_empty,),) = self._session.execute(SQL["target_is_empty"]).fetchall()
        if not is_empty:
            raise SettingsError(["the target holds a ledger already: name an empty database"])
