"""The connection of a lane, and the transactions on it; a lane that loses its connection leaves its stream."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, LiteralString

import psycopg
from psycopg.pq import TransactionStatus

from service.errors import AuditraceError, LedgerBusyError, LedgerUnavailableError, TryLaterError
from service.store.lane_session import EndedTransactionError, LaneSession, LostSessionError
from service.store.postgres.commit_lookup import was_committed
from service.store.postgres.connection import Session, connect_again, translate, translated
from service.store.postgres.pooling import OF_OTHER_SESSIONS
from service.store.postgres.statements import SQL, executing
from service.store.postgres.transaction import PostgresTransaction
from service.store.rollback_guard import RollbackGuard
from service.store.streams import BegunTransaction, StreamSettings
from service.store.writing import Position

_log = logging.getLogger(__name__)

_PARTITION_MARGIN_NS: Final = 32 * 24 * 3600 * 1_000_000_000


class PostgresSession(LaneSession[PostgresTransaction, Session]):
    """The session of one lane; it also finds out whether a commit was made whose answer was lost."""

    def __init__(self, settings: StreamSettings, url: str, rollback_guard: RollbackGuard) -> None:
        super().__init__(settings, rollback_guard, executing)
        self._url = url
        self._name = ""
        self._pid = 0
        self._partitioned_until_ns = 0

    def _do(self, statement: LiteralString) -> None:
        try:
            with self._guarded():
                self._held.execute(statement)
        except AuditraceError as error:
            # The server has aborted the transaction.
            raise EndedTransactionError(error) from error

    def _require_transaction(self, error: Exception) -> None:
        self._forget_if_others(error)
        if self._is_lost:
            raise LostSessionError from error

    def _undo(self) -> None:
        if self._is_lost:
            self.drop()
        elif self._held.info.transaction_status is not TransactionStatus.IDLE:
            self._held.execute(b"ROLLBACK")

    @property
    def _is_lost(self) -> bool:
        return self._connection is None or self._connection.closed

    @contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except psycopg.Error as error:
            self._forget_if_others(error)
            if self._is_lost:
                self.drop()
                raise LostSessionError from error
            raise translate(error) from error

    def _forget_if_others(self, error: Exception) -> None:
        """Close the session after an error that shows that its prepared statements are gone."""
        if self._connection is not None and isinstance(error, OF_OTHER_SESSIONS):
            self._connection.close()

    def _connected(self) -> Session:
        if self._is_lost:
            self.drop()
            session = connect_again(self._url)
            with translated():
                ((self._name, self._pid),) = session.execute(SQL["session_name"]).fetchall()
            # Another server may answer now, which may lack the partitions of the last one.
            self._connection, self._partitioned_until_ns = session, 0
        return self._held

    def _begin(self) -> BegunTransaction[PostgresTransaction]:
        session = self._connected()
        now_ns = self._begin_at(session)
        if now_ns > self._partitioned_until_ns - _PARTITION_MARGIN_NS:
            session.execute(b"ROLLBACK")
            self._make_partitions(session, now_ns)
            now_ns = self._begin_at(session)

        def transaction(position: Position) -> PostgresTransaction:
            return PostgresTransaction(executing(session), self._settings.clock, position, now_ns)

        return BegunTransaction(executing(session), now_ns, transaction, self._name)

    def _begin_at(self, session: Session) -> int:
        """Begin, and return the time by the database's clock."""
        session.execute(b"BEGIN")
        ((now_ns, pid, triggers),) = session.execute(SQL["begin_sealing"]).fetchall()
        if pid != self._pid or triggers != "origin":
            # The checks of the next session find the reason.
            session.close()
            raise LostSessionError
        return int(now_ns)

    def _make_partitions(self, session: Session, now_ns: int) -> None:
        try:
            ((self._partitioned_until_ns,),) = session.execute(SQL["make_partitions"]).fetchall()
        except psycopg.Error as error:
            if self._is_lost or now_ns >= self._partitioned_until_ns:
                raise
            _log.warning("the next partitions could not be made, trying again: %s", translate(error))

    def _commit(self, transaction: PostgresTransaction) -> None:
        """Commit; if the answer is lost, find out whether the commit was made, and if so, end the stream."""
        try:
            ended = self._held.execute(b"COMMIT").statusmessage
        except psycopg.Error as error:
            self._forget_if_others(error)
            if not self._is_lost:
                raise translate(error) from error
            self.drop()
            if not self._took_place(transaction, error):
                raise LostSessionError from error
            self._rollback_guard.lost_sight(transaction.tip)
        else:
            # The server answers to the commit of an aborted transaction without an error.
            if ended != "COMMIT":
                raise LedgerBusyError("the server has rolled the transaction back: try again")

    def _took_place(self, transaction: PostgresTransaction, lost: psycopg.Error) -> bool:
        if not transaction.outcomes:
            # Without a record there is nothing to look for, and the work may be done twice.
            return False
        try:
            return was_committed(self._url, self._name, transaction.tip)
        except TryLaterError as error:
            raise LedgerUnavailableError(
                "the ledger went away during the commit, and whether it took place is not known: look before you try "
                "again, or repeat the request with the same Idempotency-Key"
            ) from (error.__cause__ or lost)
