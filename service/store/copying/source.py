"""The file from which a ledger is copied, held so that nobody writes to it meanwhile."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from service.errors import SettingsError
from service.store.queries import Row, load_queries
from service.store.sqlite.connection import connect, translated
from service.store.sqlite.owners import living_owners

SQL: Final = load_queries("service.store.copying")

_NS_PER_WEEK: Final = 7 * 24 * 3600 * 1_000_000_000


class Source:
    """A SQLite file that no process has open.

    Raises (on opening):
        SettingsError: there is none, or a process of the deployment lives.
        TryLaterError: it cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SettingsError([f"there is no database at {path}"])
        living = living_owners(path)
        if living:
            raise SettingsError([f"{path} is in use by {', '.join(living)}: stop every process that works on it first"])
        self._connection = connect(path)
        with translated():
            self._connection.execute(SQL["source_begin"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def months(self) -> Sequence[int]:
        """Return moments such that each month in which there are records has one; nanoseconds since the epoch."""
        with translated():
            ((first, last),) = self._connection.execute(SQL["times_of_source"]).fetchall()
        return [] if first is None else [*range(first, last, _NS_PER_WEEK), last]

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table, in their order."""
        with translated():
            for row in self._connection.execute(SQL[f"read_{table}"]):
                yield tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)
