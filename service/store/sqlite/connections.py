"""Connections to the SQLite file beside the lane's: one that threads share, or one for each thread that reads."""

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from service.errors import LedgerUnavailableError
from service.store.connections import Connections, Transactions
from service.store.queries import Execute
from service.store.sqlite.connection import FileConnection, connect
from service.store.sqlite.statements import SQL, executing
from service.store.sqlite.untouched import OpenFile

R = TypeVar("R")


class SharedConnection(Transactions):
    """One connection, used by one thread at a time.

    Each method first checks that the file is in its place: nothing is read from or written to a replaced file.
    """

    def __init__(self, path: Path, *, read_only: bool = False, is_relaxed: bool = False) -> None:
        """Open the file; with `is_relaxed`, a commit does not wait for the disk."""
        self._lock = threading.Lock()
        self._connection = connect(path, read_only=read_only)
        if is_relaxed:
            self._connection.execute(SQL["relaxed"])

    @override
    def run(self, work: Callable[[Execute], R]) -> R:
        with self._lock, self._connection.in_place() as connection:
            return work(executing(connection))

    @override
    def read(self, work: Callable[[Execute], R]) -> R:
        return self._transact("BEGIN", work)

    @override
    def write(self, work: Callable[[Execute], R]) -> R:
        return self._transact("BEGIN IMMEDIATE", work)

    @override
    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _transact(self, begin: str, work: Callable[[Execute], R]) -> R:
        with self._lock, self._connection.in_place() as connection:
            connection.execute(begin)
            try:
                value = work(executing(connection))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return value


class ThreadConnections(Connections):
    """A connection that only reads, for each thread."""

    def __init__(self, path: Path, reading: OpenFile) -> None:
        """Open the file with `reading` at the first read of each thread."""
        self._path = path
        self._reading = reading
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections = ExitStack()
        self._is_closed = False

    @override
    def run(self, work: Callable[[Execute], R]) -> R:
        with self._connection() as connection:
            return work(executing(connection))

    @override
    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._connections.close()

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
