"""The connection of a lane, and the transactions on it; a lane that loses its connection leaves its stream."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, LiteralString, Protocol, TypeVar

from service.errors import AuditraceError, FencedError
from service.store.queries import Execute
from service.store.rollback_guard import RollbackGuard
from service.store.streams import BegunTransaction, LaneStream, StreamSettings
from service.store.writing import LedgerTransaction, Position
from telemetry.errors import TelemetryError

R = TypeVar("R")
T = TypeVar("T", bound=LedgerTransaction)


class Closable(Protocol):
    """A connection that can be closed."""

    def close(self) -> None:
        """Close it; may be called again."""
        ...


C = TypeVar("C", bound=Closable)

_log = logging.getLogger(__name__)


class LostSessionError(Exception):
    """The connection was lost and nothing is committed: all of the work can be done again."""


class EndedTransactionError(Exception):
    """An error ended the transaction, or left it in an unknown state: nothing of its group can be committed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class LaneSession(ABC, Generic[T, C]):
    """The connection and the stream of one lane, for its thread only. Without a connection there is no stream."""

    def __init__(
        self, settings: StreamSettings, rollback_guard: RollbackGuard, executing: Callable[[C], Execute]
    ) -> None:
        """Start without a connection; `executing` returns the function that executes statements on one."""
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
        """Return the connection; open it if there is none."""

    @abstractmethod
    def _do(self, statement: LiteralString) -> None:
        """Execute a savepoint statement.

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
        """Open a block that raises errors of the driver as those of the service, or as `LostSessionError`."""

    @abstractmethod
    def _begin(self) -> BegunTransaction[T]:
        """Begin a transaction of the database; open a connection first if there is none."""

    @abstractmethod
    def _commit(self, transaction: T) -> None:
        """Commit; the connection is closed if its answer does not tell whether the commit was made.

        Raises:
            LostSessionError: the connection was lost and nothing is committed.
            AuditraceError: the database refused; nothing is committed, unless the text says that this is unknown.
        """

    @abstractmethod
    def _undo(self) -> None:
        """Roll back what is open."""

    def begin(self) -> T:
        """Begin a transaction behind the stream's tip; if there is no stream, the transaction opens one.

        Raises:
            LostSessionError: the connection turned out to be lost.
            LedgerUnavailableError: no connection can be opened.
        """
        with self._guarded():
            begun = self._begin()
            if self._stream.is_ahead_of(begun.now_ns):
                self._undo()
                self.close_stream()
                begun = self._begin()
            return self._stream.begin(begun)

    def attempt(self, transaction: T, work: Callable[[T], R], *, is_patient: bool) -> R:
        """Run `work` in a savepoint and return its result; if it raises, everything that it wrote is undone.

        Args:
            transaction: the one that `begin` returned.
            work: may read, and write by `save`.
            is_patient: wait for jobs that other transactions lock; only allowed while this one locks none.

        Raises:
            LostSessionError, EndedTransactionError: the transaction is gone.
            FencedError: the stream no longer belongs to this lane; nothing of the transaction can be committed.
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
            FencedError: another process closed or wrote the stream; nothing is committed.
            LostSessionError, AuditraceError: as `_commit` does.
        """
        with self._guarded():
            self._stream.move(transaction)
        self._commit(transaction)
        if self._connection is not None:
            self._stream.committed(transaction.position)
        self._settings.on_commit(transaction.outcomes)

    def roll_back(self) -> None:
        """Undo what is not committed, also the opening of a stream."""
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
        """Disown the stream and continue in another one; what is not committed must be undone before."""
        try:
            with self._guarded():
                self._stream.disown(self._executing(self._connected()), fenced)
        except (AuditraceError, LostSessionError):
            _log.exception("a stream that somebody else wrote could not be disowned")
            self._stream.leave()

    def renew(self) -> None:
        """Renew the stream's lease while there is nothing to commit."""
        if self._connection is None:
            return
        try:
            with self._guarded():
                self._stream.renew(self._executing(self._connected()), self._settings.clock())
        except (AuditraceError, LostSessionError) as error:
            _log.warning("the stream's lease could not be renewed: %r", error)
            self.roll_back()

    def close_stream(self) -> Position | None:
        """Write the stream's last record and return the position behind it; None on failure: a checkpoint closes it."""
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
        """Run `work` behind the end; if that fails, the next checkpoint of another process covers the stream."""
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
        """Close the connection and leave the stream."""
        left = self._stream.leave()
        if left is not None:
            self._rollback_guard.lost_sight(left)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin_behind_last(self) -> T:
        begun = self._begin()
        if not self._stream.is_open:
            # The old connection was lost, and the stream with it; `_begin` has opened another connection.
            raise LostSessionError
        return self._stream.begin(begun)
