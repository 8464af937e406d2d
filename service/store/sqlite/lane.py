"""The lane of a process: one thread, one connection, one stream; queued work is committed in groups."""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from service.errors import (
    AuditraceError,
    BrokenLedgerError,
    FencedError,
    LedgerUnavailableError,
    ShuttingDownError,
)
from service.store.leases import RENEW_S
from service.store.sqlite.connection import FileConnection, connect, is_of_disk, reason_of, translate, translated
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.statements import executing
from service.store.sqlite.transaction import SqliteTransaction
from service.store.streams import Begun, LaneStream, StreamSettings
from service.store.witness import Witness
from service.store.writing import Position
from telemetry.errors import TelemetryError

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_BATCH: Final = 128
_UNKNOWN: Final = (
    "{} during the commit, and whether it counts cannot be told: "
    "send the same request again, with the same Idempotency-Key if it had one"
)
COMMIT_UNKNOWN: Final = _UNKNOWN.format("the disk failed")
COMMIT_ELSEWHERE: Final = _UNKNOWN.format("the database was moved or replaced")


SqliteWork: TypeAlias = Callable[[SqliteTransaction], T]
"""Work that knows which store it runs on; `service.ports.Work` is the kind that does not."""


class _Entry(msgspec.Struct, frozen=True, eq=False):
    work: SqliteWork[Any]
    future: "Future[Any]"


class SqliteLane:
    """Implements `service.ports.Ledger` for one process.

    Because the lane is serial, the numbers of its stream are gapless and in commit order. A future is resolved after
    the commit and never before; what fails alone fails alone, and what fails the transaction fails the whole group.
    """

    def __init__(self, settings: StreamSettings, path: Path, locks: OwnerLocks) -> None:
        self._settings = settings
        self._path = path
        self._locks = locks
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._intake = threading.Lock()
        self._is_closed = False
        self._connection: FileConnection | None = None
        self._stream: LaneStream[SqliteTransaction] = LaneStream(settings)
        self.witness = Witness()
        self._last: SqliteWork[object] | None = None
        self._thread = threading.Thread(target=self._serve, name="lane", daemon=True)
        self._thread.start()

    def submit(self, work: SqliteWork[T]) -> "Future[T]":
        """Queue `work` for the next group; the future is resolved after its commit."""
        future: Future[T] = Future()
        with self._intake:
            if self._is_closed:
                future.set_exception(ShuttingDownError("the service is stopping"))
            else:
                self._queue.put(_Entry(work, future))
        return future

    def close(self, last: SqliteWork[object] | None = None) -> None:
        """Commit what is queued, close the stream with a record of its own, and end the thread.

        `last` runs in a transaction behind the close, and may add checkpoints only; it is left out when this lane has
        no stream that it closed itself.
        """
        with self._intake:
            already, self._is_closed = self._is_closed, True
        if not already:
            self._last = last
            self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        is_open = True
        while is_open:
            group: list[_Entry] = []
            try:
                entry = self._queue.get(timeout=RENEW_S)
            except queue.Empty:
                self._renew()
                continue
            while entry is not None:
                group.append(entry)
                if len(group) == MAX_BATCH or self._queue.empty():
                    break
                entry = self._queue.get()
            is_open = entry is not None
            self._commit([entry for entry in group if entry.future.set_running_or_notify_cancel()])
        end = self._end_stream()
        if end is not None and self._last is not None:
            self._commit_behind_end(end, self._last)
        self._drop_connection()

    def _commit(self, group: Sequence[_Entry], *, is_redo: bool = False) -> None:
        if not group:
            return
        try:
            outcomes = self._transact(group)
        except FencedError as error:
            # Nothing was committed, so the group is redone in a new stream, which nobody else has seen.
            self._disown_stream(error)
            if is_redo:
                _fail(group, error)
            else:
                self._commit(group, is_redo=True)
            return
        except BrokenLedgerError as error:
            self._commit_alone(group, error)
            return
        except AuditraceError as error:
            _fail(group, error)
            return
        except Exception as error:  # noqa: BLE001 - a dead lane would leave every later caller waiting
            _log.exception("a group of %d could not be committed", len(group))
            self._drop_connection()
            _fail(group, error)
            return
        for entry, (value, failure) in zip(group, outcomes, strict=True):
            if failure is None:
                entry.future.set_result(value)
            else:
                entry.future.set_exception(failure)

    def _commit_alone(self, group: Sequence[_Entry], error: BrokenLedgerError) -> None:
        """A constraint refused the commit: find out whose fault it was, so that nobody fails with another."""
        if len(group) == 1:
            _fail(group, error)
            return
        for entry in group:
            self._commit([entry])

    def _transact(self, group: Sequence[_Entry]) -> Sequence[tuple[Any, Exception | None]]:
        """Run the group in one transaction and return each one's value or failure, after the commit."""
        if self._stream.is_ahead_of(self._settings.clock()):
            self._end_stream()
        connection = self._connected()
        with translated():
            begun = self._begin(connection)
        try:
            transaction = self._stream.begin(begun)
            outcomes = [self._attempt(connection, transaction, entry.work) for entry in group]
            self._stream.move(transaction)
        except BaseException as error:
            self._roll_back(connection)
            if isinstance(error, sqlite3.Error):
                raise translate(error) from error
            raise
        self._finish(connection)
        self._stream.committed(transaction.position)
        self._settings.on_commit(transaction.outcomes)
        return outcomes

    def _attempt(
        self, connection: sqlite3.Connection, transaction: SqliteTransaction, work: SqliteWork[Any]
    ) -> tuple[Any, Exception | None]:
        before = transaction.position
        connection.execute("SAVEPOINT work")
        try:
            value = work(transaction)
        except FencedError:
            raise
        except Exception as error:
            if not connection.in_transaction or is_of_disk(error):
                # Nobody's work is in the transaction any more, or it cannot be known what of it is.
                raise
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
            transaction.rewind(before)
            return None, translate(error) if isinstance(error, sqlite3.Error) else error
        connection.execute("RELEASE work")
        return value, None

    def _begin(self, connection: FileConnection) -> Begun[SqliteTransaction]:
        settings = self._settings
        connection.execute("BEGIN IMMEDIATE")
        # Behind the lock, so that the order of commits is that of time.
        now_ns = settings.clock()

        def transaction(position: Position) -> SqliteTransaction:
            return SqliteTransaction(connection, settings.clock, self._locks, position, now_ns)

        return Begun(executing(connection), now_ns, transaction)

    def _finish(self, connection: FileConnection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            was_refused = connection.in_transaction
            self._roll_back(connection)
            if was_refused:
                raise translate(error) from error
            # It may have reached the disk and count at the next start: this lane never continues the stream.
            self._drop_connection()
            raise LedgerUnavailableError(COMMIT_UNKNOWN, reason=reason_of(error)) from error
        try:
            connection.require_in_place()
        except LedgerUnavailableError as error:
            # Committed to a file that may never be the database again.
            self._drop_connection()
            raise LedgerUnavailableError(COMMIT_ELSEWHERE) from error

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._stream.rolled_back()
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            _log.exception("a transaction could not be rolled back, its connection is dropped")
            self._drop_connection()

    def _renew(self) -> None:
        if self._connection is None:
            return
        try:
            with self._connection.in_place() as connection:
                self._stream.renew(executing(connection), self._settings.clock())
        except AuditraceError as error:
            _log.warning("the stream's lease could not be renewed: %s", error)
            self._stream.rolled_back()

    def _end_stream(self) -> Position | None:
        """Write the stream's last record and return the position behind it; when that fails, a checkpoint closes it."""
        if not self._stream.is_open:
            return None
        try:
            connection = self._connected()
            transaction = self._stream.begin(self._begin(connection))
            self._stream.end(transaction)
            self._finish(connection)
        except (sqlite3.Error, AuditraceError, TelemetryError) as error:
            _log.warning("the stream was left open, the next checkpoint closes it: %s", error)
            if self._connection is not None:
                self._roll_back(self._connection)
            if isinstance(error, FencedError):
                self._disown_stream(error)
            self._stream.leave()
            return None
        self._stream.leave()
        self._settings.on_commit(transaction.outcomes)
        return transaction.position

    def _commit_behind_end(self, end: Position, work: SqliteWork[object]) -> None:
        """Run `work` behind the end; when that fails, the next checkpoint of another process covers the stream."""
        try:
            connection = self._connected()
            transaction = self._begin(connection).transaction(end)
            work(transaction)
            self._stream.move_behind_end(transaction, end)
            self._finish(connection)
        except (sqlite3.Error, AuditraceError, TelemetryError) as error:
            _log.warning("the last checkpoint could not be written, the next process writes it: %s", error)
            if self._connection is not None:
                self._roll_back(self._connection)
        else:
            self._settings.on_commit(transaction.outcomes)

    def _disown_stream(self, why: FencedError) -> None:
        try:
            self._stream.disown(executing(self._connected()), why)
        except (sqlite3.Error, AuditraceError):
            _log.exception("a stream that somebody else wrote could not be disowned")

    def _connected(self) -> FileConnection:
        if self._connection is None:
            self._connection = connect(self._path)
        self._connection.require_in_place()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        left = self._stream.leave()
        if left is not None:
            self.witness.lost_sight(left)
        if connection is not None:
            connection.close()


def _fail(group: Sequence[_Entry], error: Exception) -> None:
    for entry in group:
        entry.future.set_exception(error)
