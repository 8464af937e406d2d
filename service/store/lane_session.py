"""The connection of a lane and the transactions on it: when it is lost, its stream is given up with it."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, LiteralString, Protocol, TypeVar

from service.errors import AuditraceError, FencedError
from service.store.queries import Execute
from service.store.rollback_guard import RollbackGuard
from service.store.streams import Begun, LaneStream, StreamSettings
from service.store.writing import LedgerTransaction, Position
from telemetry.errors import TelemetryError

R = TypeVar("R")
T = TypeVar("T", bound=LedgerTransaction)


class Closable(Protocol):
    """A connection, as far as it can be closed."""

    def close(self) -> None:
        """Close it; may be called again."""
        ...


C = TypeVar("C", bound=Closable)

_log = logging.getLogger(__name__)


class LostSessionError(Exception):
    """The connection was lost before the commit was asked for: nothing is committed, and all can be done again."""


class EndedTransactionError(Exception):
    """An error has ended the transaction, or nobody knows what is in it: nothing of its group can be committed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class LaneSession(ABC, Generic[T, C]):
    """One lane's connection and its stream; used by its thread alone. Without a connection there is no stream."""

    def __init__(
        self, settings: StreamSettings, rollback_guard: RollbackGuard, executing: Callable[[C], Execute]
    ) -> None:
        """Make one without a connection; `executing` returns what executes statements on one."""
        self._executing = executing
        self._settings = settings
        self._rollback_guard = rollback_guard
        self._stream: LaneStream[T] = LaneStream(settings)
        self._connection: C | None = None

    @property
    def _held(self) -> C:
        if self._connection is None:
            raise LostSessionError
        return self._connection

    @abstractmethod
    def _connected(self) -> C:
        """Return the connection, which is opened if there is none."""

    @abstractmethod
    def _do(self, statement: LiteralString) -> None:
        """Execute a statement about savepoints.

        Raises:
            LostSessionError, EndedTransactionError: the transaction is gone.
        """

    @abstractmethod
    def _require_transaction(self, error: Exception) -> None:
        """Raise if `error` ended the transaction, or took the connection away.

        Raises:
            LostSessionError, EndedTransactionError: it did.
        """

    @abstractmethod
    def _guarded(self) -> AbstractContextManager[None]:
        """Turn errors of the driver into those of the service, and the loss of the connection into its own."""

    @abstractmethod
    def _begin(self) -> Begun[T]:
        """Begin a transaction of the database, on a new connection where there is none."""

    @abstractmethod
    def _commit(self, transaction: T) -> None:
        """Commit; the connection is given up when it cannot be told whether that took place, or only later.

        Raises:
            LostSessionError: the connection was lost and nothing is committed.
            AuditraceError: the database refused; nothing is committed, unless the text says that this is not known.
        """

    @abstractmethod
    def _undo(self) -> None:
        """Roll back what is open."""

    def begin(self) -> T:
        """Begin a transaction behind the stream's tip; the stream is opened by it where there is none.

        Raises:
            LostSessionError: the connection turned out to be lost.
            LedgerUnavailableError: there is no connection to be had.
        """
        with self._guarded():
            begun = self._begin()
            if self._stream.is_ahead_of(begun.now_ns):
                self._undo()
                self.close_stream()
                begun = self._begin()
            return self._stream.begin(begun)

    def attempt(self, transaction: T, work: Callable[[T], R], *, is_patient: bool) -> R:
        """Run `work` in a savepoint and return what it returns; what it raises has left nothing behind.

        Args:
            transaction: the one that `begin` returned.
            work: may read, and write by `save`.
            is_patient: wait for jobs that others hold, which is right only when nothing is held here.

        Raises:
            LostSessionError, EndedTransactionError: the transaction is gone.
            FencedError: the stream is not this lane's any more; nothing of the transaction can be committed.
        """
        before = transaction.position
        transaction.wait_for_jobs(is_patient=is_patient)
        self._do("SAVEPOINT work")
        try:
            value = work(transaction)
            self._do("RELEASE work")
        except (FencedError, EndedTransactionError, LostSessionError):
            raise
        except Exception as error:
            self._require_transaction(error)
            self._do("ROLLBACK TO work")
            self._do("RELEASE work")
            transaction.rewind(before)
            raise
        return value

    def commit(self, transaction: T) -> None:
        """Move the stored tip, which fences the lane, and commit.

        Raises:
            FencedError: the stream was closed or written by another; nothing is committed.
            LostSessionError, AuditraceError: as `_commit` does.
        """
        with self._guarded():
            self._stream.move(transaction)
        self._commit(transaction)
        if self._connection is not None:
            self._stream.committed(transaction.position)
        self._settings.on_commit(transaction.outcomes)

    def roll_back(self) -> None:
        """Undo what was not committed; a stream that was just being opened is forgotten."""
        self._stream.rolled_back()
        if self._connection is None:
            return
        try:
            with self._guarded():
                self._undo()
        except (AuditraceError, LostSessionError) as error:
            _log.warning("a transaction could not be rolled back, its connection is dropped: %r", error)
            self.drop()

    def disown_stream(self, fenced: FencedError) -> None:
        """Go on in another stream, once what was not committed is undone."""
        try:
            with self._guarded():
                self._stream.disown(self._executing(self._connected()), fenced)
        except (AuditraceError, LostSessionError):
            _log.exception("a stream that somebody else wrote could not be disowned")
            self._stream.leave()

    def renew(self) -> None:
        """Say, while there is nothing to commit, that the stream's process is alive."""
        if self._connection is None:
            return
        try:
            with self._guarded():
                self._stream.renew(self._executing(self._connected()), self._settings.clock())
        except (AuditraceError, LostSessionError) as error:
            _log.warning("the stream's lease could not be renewed: %r", error)
            self.roll_back()

    def close_stream(self) -> Position | None:
        """Write the stream's last record and return the position behind it; when that fails, a checkpoint closes it."""
        if not self._stream.is_open:
            return None
        try:
            with self._guarded():
                transaction = self._begin_behind_last()
                self._stream.end(transaction)
            self._commit(transaction)
        except (AuditraceError, TelemetryError, LostSessionError) as error:
            _log.warning("the stream was left open, the next checkpoint closes it: %r", error)
            self.roll_back()
            if isinstance(error, FencedError):
                self.disown_stream(error)
            self._stream.leave()
            return None
        self._stream.leave()
        self._settings.on_commit(transaction.outcomes)
        return transaction.position

    def commit_behind(self, end: Position, work: Callable[[T], object]) -> None:
        """Run `work` behind the end; when that fails, the next checkpoint of another process covers the stream."""
        try:
            with self._guarded():
                transaction = self._begin().transaction(end)
                work(transaction)
                self._stream.move_behind_end(transaction, end)
            self._commit(transaction)
        except Exception as error:  # noqa: BLE001 - whatever fails here, the rest of the process must be closed
            _log.warning("the last checkpoint could not be written, the next process writes it: %r", error)
            self.roll_back()
        else:
            self._settings.on_commit(transaction.outcomes)

    def drop(self) -> None:
        """Close the connection, and give up the stream with it."""
        left = self._stream.leave()
        if left is not None:
            self._rollback_guard.lost_sight(left)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin_behind_last(self) -> T:
        begun = self._begin()
        if not self._stream.is_open:
            # Its connection was lost, and another one was opened just now.
            raise LostSessionError
        return self._stream.begin(begun)
