"""The file from which a ledger is copied, locked so that no process writes to it meanwhile."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from service.errors import SettingsError
from service.store.queries import Row, load_queries
from service.store.sqlite.connection import connect, translated
from service.store.sqlite.owners import living_owners
from service.store.sqlite.untouched import OpenFile, in_use, untouched

SQL: Final = load_queries("service.store.copying")

_NS_PER_WEEK: Final = 7 * 24 * 3600 * 1_000_000_000


class SourceDatabase:
    """A SQLite file that no process has open; in a folder that cannot be written, it is read without any new file.

    Raises (on opening):
        SettingsError: there is no file, or a process of the deployment is alive, or may be alive.
        TryLaterError: it cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SettingsError([f"there is no database at {path}"])
        living = _living(path)
        if living:
            raise SettingsError([f"{path} is in use by {', '.join(living)}: stop every process that works on it first"])
        self._opened = ExitStack()
        self.reading: OpenFile = in_use
        """How the file can be opened for other reads meanwhile."""
        if os.access(path.parent, os.W_OK):
            self._connection = self._opened.enter_context(closing(connect(path)))
            with translated():
                self._connection.execute(SQL["source_begin"])
        else:
            self.reading = untouched
            self._connection = self._opened.enter_context(untouched(path))
            with translated():
                self._connection.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def require_in_place(self) -> None:
        """Raise if the path now names another file, which processes may already write.

        Raises:
            LedgerUnavailableError: it was moved, removed or replaced.
        """
        self._connection.require_in_place()

    def months(self) -> Sequence[int]:
        """Return at least one time in each month that has records, in nanoseconds since the epoch."""
        with translated():
            ((first, last),) = self._connection.execute(SQL["times_of_source"]).fetchall()
        return [] if first is None else [*range(first, last, _NS_PER_WEEK), last]

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table, in the order of the comparison."""
        with translated():
            for row in self._connection.execute(SQL[f"read_{table}"]):
                yield tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)


def _living(path: Path) -> Sequence[str]:
    try:
        return living_owners(path)
    except OSError as error:
        what = f"beside {path} lie locks of processes, which cannot be looked at: {error.strerror}"
        raise SettingsError(
            [f"{what}; copy the file, with its -wal if it has one, to a folder that can be written"]
        ) from error
