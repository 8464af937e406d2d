"""Reads of a SQLite file, each thread on a read-only connection of its own."""

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from service.errors import LedgerUnavailableError
from service.store.queries import Execute, Row, Search, with_conditions
from service.store.reading import LedgerReads
from service.store.rows import Stored
from service.store.sqlite.connection import FileConnection
from service.store.sqlite.statements import SQL
from service.store.sqlite.untouched import Reading, in_use

T = TypeVar("T")


class SqliteReads(LedgerReads):
    """Implements `service.ports.Reads`; records are ordered by their position, which is the order of commits."""

    order = ("position",)
    start = (0,)
    cursor = tuple[Stored]
    cursor_and_newest = tuple[Stored, Stored]

    def __init__(self, path: Path, reading: Reading = in_use) -> None:
        self._path = path
        self._reading = reading
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections = ExitStack()
        self._is_closed = False

    def close(self) -> None:
        """Close the connections of all threads; none may read any more."""
        with self._lock:
            self._is_closed = True
            self._connections.close()

    def _search(self, read: Callable[[Search], T]) -> T:
        with self._connection() as connection:

            def search(name: str, values: Mapping[str, object], conditions: Sequence[str]) -> Iterable[Row]:
                return connection.execute(with_conditions(SQL[name], conditions), values)

            return read(search)

    def _newest(self, execute: Execute) -> int:
        ((position,),) = execute("last_place", {})
        return int(position)

    def _behind(self, newest: int) -> Sequence[int | str]:
        return (newest + 1,)

    @contextmanager
    def _connection(self) -> Generator[FileConnection]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                if self._is_closed:
                    raise LedgerUnavailableError("the ledger is closed: the service is stopping")
                connection = self._connections.enter_context(self._reading(self._path))
            self._local.connection = connection
        with connection.in_place():
            yield connection
