"""The connection of a lane and the transactions on it: when it is lost, its stream is given up with it."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from typing_extensions import override

from service.errors import AuditraceError, FencedError, LedgerUnavailableError, TryLaterError
from service.store.lanes import LaneSession, LostSessionError
from service.store.postgres.commit_lookup import was_committed
from service.store.postgres.connection import Session, connect_again, translate, translated
from service.store.postgres.pooling import OF_OTHER_SESSIONS
from service.store.postgres.statements import SQL, executing
from service.store.postgres.transaction import PostgresTransaction
from service.store.rollback_guard import RollbackGuard
from service.store.streams import Begun, LaneStream, StreamSettings
from service.store.writing import Position
from telemetry.errors import TelemetryError

R = TypeVar("R")

_log = logging.getLogger(__name__)

_PARTITION_MARGIN_NS: Final = 32 * 24 * 3600 * 1_000_000_000


class PostgresSession(LaneSession[PostgresTransaction]):
    """One lane's session, and what became of its last commit when it was lost."""

    def __init__(self, settings: StreamSettings, url: str, rollback_guard: RollbackGuard) -> None:
        self._settings = settings
        self._url = url
        self._rollback_guard = rollback_guard
        self._stream: LaneStream[PostgresTransaction] = LaneStream(settings)
        self._session: Session | None = None
        self._name = ""
        self._pid = 0
        self._partitioned_until_ns = 0

    @override
    def begin(self) -> PostgresTransaction:
        session = self._connected()
        with self._guarded():
            begun = self._begin(session)
            if self._stream.is_ahead_of(begun.now_ns):
                session.execute(b"ROLLBACK")
                self.close_stream()
                session = self._connected()
                begun = self._begin(session)
            if begun.now_ns > self._partitioned_until_ns - _PARTITION_MARGIN_NS:
                session.execute(b"ROLLBACK")
                self._make_partitions(session, begun.now_ns)
                begun = self._begin(session)
            return self._stream.begin(begun)

    @override
    def attempt(
        self, transaction: PostgresTransaction, work: Callable[[PostgresTransaction], R], *, is_patient: bool
    ) -> R:
        before = transaction.position
        transaction.wait_for_jobs(is_patient=is_patient)
        with self._guarded():
            self._held.execute(b"SAVEPOINT work")
        try:
            value = work(transaction)
            self._held.execute(b"RELEASE work")
        except FencedError:
            raise
        except Exception as error:
            self._forget_if_others(error)
            if self._is_lost:
                raise LostSessionError from error
            with self._guarded():
                self._held.execute(b"ROLLBACK TO work")
                self._held.execute(b"RELEASE work")
            transaction.rewind(before)
            raise
        return value

    @override
    def commit(self, transaction: PostgresTransaction) -> None:
        """Move the stored tip, which fences the lane, and commit.

        When the answer is lost, it is found out whether the commit took place; the stream ends here then.

        Raises:
            FencedError: the stream was closed or written by another; nothing is committed.
            LostSessionError: the connection was lost and nothing is committed.
            AuditraceError: the database refused; nothing is committed, unless the text says that this is not known.
        """
        with self._guarded():
            self._stream.move(transaction)
        self._finish(transaction)
        if self._session is not None:
            self._stream.committed(transaction.position)

    @override
    def roll_back(self) -> None:
        if self._session is not None and (self._is_lost or not _is_rolled_back(self._session)):
            self.drop()
        self._stream.rolled_back()

    @override
    def disown_stream(self, fenced: FencedError) -> None:
        if self._session is None:
            return
        try:
            self._stream.disown(executing(self._session), fenced)
        except psycopg.Error:
            _log.exception("a stream that somebody else wrote could not be disowned")

    @override
    def renew(self) -> None:
        if self._session is None:
            return
        try:
            self._stream.renew(executing(self._session), self._settings.clock())
        except psycopg.Error as error:
            _log.warning("the stream's lease could not be renewed: %s", translate(error))
            self.drop()

    @override
    def close_stream(self) -> Position | None:
        if self._session is None or not self._stream.is_open:
            return None
        try:
            with self._guarded():
                transaction = self._stream.begin(self._begin(self._session))
                self._stream.end(transaction)
            self._finish(transaction)
        except (AuditraceError, TelemetryError, LostSessionError) as error:
            _log.warning("the stream was left open, the next checkpoint closes it: %r", error)
            self.roll_back()
            if isinstance(error, FencedError):
                self.disown_stream(error)
            self._stream.leave()
            return None
        self._stream.leave()
        return transaction.position

    @override
    def commit_behind(self, end: Position, work: Callable[[PostgresTransaction], object]) -> None:
        try:
            session = self._connected()
            with self._guarded():
                transaction = self._begin(session).transaction(end)
                work(transaction)
                self._stream.move_behind_end(transaction, end)
            self._finish(transaction)
        except (AuditraceError, TelemetryError, LostSessionError) as error:
            _log.warning("the last checkpoint could not be written, the next process writes it: %r", error)
            self.roll_back()

    @override
    def drop(self) -> None:
        """Close the session, and give up the stream with it."""
        session, self._session = self._session, None
        left = self._stream.leave()
        if left is not None:
            self._rollback_guard.lost_sight(left)
        if session is not None:
            session.close()

    @property
    def _held(self) -> Session:
        if self._session is None:
            raise LostSessionError
        return self._session

    @property
    def _is_lost(self) -> bool:
        return self._session is None or self._session.closed

    @contextmanager
    def _guarded(self) -> Generator[None]:
        """Turn errors of the driver into those of the service, and the loss of the connection into its own."""
        try:
            yield
        except psycopg.Error as error:
            self._forget_if_others(error)
            if self._is_lost:
                self.drop()
                raise LostSessionError from error
            raise translate(error) from error

    def _forget_if_others(self, error: Exception) -> None:
        """Close the session after an error that shows that what was prepared in it is gone."""
        if self._session is not None and isinstance(error, OF_OTHER_SESSIONS):
            self._session.close()

    def _connected(self) -> Session:
        if self._is_lost:
            self.drop()
            session = connect_again(self._url)
            with translated():
                ((self._name, self._pid),) = session.execute(SQL["session_name"]).fetchall()
            # Another server may answer now, which may not have what the last one had.
            self._session, self._partitioned_until_ns = session, 0
        return self._held

    def _begin(self, session: Session) -> Begun[PostgresTransaction]:
        session.execute(b"BEGIN")
        ((now_ns, pid, triggers),) = session.execute(SQL["begin_sealing"]).fetchall()
        if pid != self._pid or triggers != "origin":
            # The next session is looked at from the beginning, and the reason is found there.
            session.close()
            raise LostSessionError

        def transaction(position: Position) -> PostgresTransaction:
            return PostgresTransaction(session, self._settings.clock, position, int(now_ns))

        return Begun(executing(session), int(now_ns), transaction, self._name)

    def _make_partitions(self, session: Session, now_ns: int) -> None:
        try:
            ((self._partitioned_until_ns,),) = session.execute(SQL["make_partitions"]).fetchall()
        except psycopg.Error as error:
            if self._is_lost or now_ns >= self._partitioned_until_ns:
                raise
            _log.warning("the next partitions could not be made, trying again: %s", translate(error))

    def _finish(self, transaction: PostgresTransaction) -> None:
        try:
            self._held.execute(b"COMMIT")
        except psycopg.Error as error:
            self._forget_if_others(error)
            if not self._is_lost:
                raise translate(error) from error
            self.drop()
            if not self._took_place(transaction, error):
                raise LostSessionError from error
            self._rollback_guard.lost_sight(transaction.tip)
        self._settings.on_commit(transaction.outcomes)

    def _took_place(self, transaction: PostgresTransaction, lost: psycopg.Error) -> bool:
        if not transaction.outcomes:
            # Without a record there is nothing to look for, and nothing that must not be done twice.
            return False
        try:
            return was_committed(self._url, self._name, transaction.tip)
        except TryLaterError as error:
            raise LedgerUnavailableError(
                "the ledger went away during the commit, and whether it took place is not known: look before you try "
                "again, or repeat the request with the same Idempotency-Key"
            ) from (error.__cause__ or lost)


def _is_rolled_back(session: Session) -> bool:
    try:
        if session.info.transaction_status is not TransactionStatus.IDLE:
            session.execute(b"ROLLBACK")
    except psycopg.Error as error:
        _log.warning("a transaction could not be rolled back, its session is dropped with it: %s", translate(error))
        return False
    return True
