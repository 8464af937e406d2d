"""The single lane of a process on SQLite (a file has one writer), and the connection that it writes on."""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, LiteralString

from typing_extensions import override

from service.errors import LedgerUnavailableError
from service.store.lane_session import EndedTransactionError, LaneSession
from service.store.lanes import GroupRules, Lanes
from service.store.rollback_guard import RollbackGuard
from service.store.sqlite.connection import FileConnection, connect, is_of_disk, reason_of, translate, translated
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.statements import executing
from service.store.sqlite.transaction import SqliteTransaction
from service.store.streams import BegunTransaction, StreamSettings
from service.store.writing import Position

_UNKNOWN: Final = (
    "{} during the commit, and whether it counts cannot be told: "
    "send the same request again, with the same Idempotency-Key if it had one"
)
COMMIT_UNKNOWN: Final = _UNKNOWN.format("the disk failed")
COMMIT_ELSEWHERE: Final = _UNKNOWN.format("the database was moved or replaced")


class SqliteLane(Lanes[SqliteTransaction]):
    """Implements `service.ports.Ledger` for one process."""

    def __init__(self, settings: StreamSettings, path: Path, locks: OwnerLocks) -> None:
        rollback_guard = RollbackGuard()
        super().__init__(settings, [SqliteSession(settings, path, locks, rollback_guard)], _RULES, rollback_guard)
        self.path = path
        self.locks = locks


class SqliteSession(LaneSession[SqliteTransaction, FileConnection]):
    """The connection of the lane."""

    def __init__(self, settings: StreamSettings, path: Path, locks: OwnerLocks, rollback_guard: RollbackGuard) -> None:
        super().__init__(settings, rollback_guard, executing)
        self._path = path
        self._locks = locks

    def _do(self, statement: LiteralString) -> None:
        try:
            self._held.execute(statement)
        except sqlite3.Error as error:
            raise EndedTransactionError(error) from error

    def _require_transaction(self, error: Exception) -> None:
        # After a disk error it is unknown which work is still in the transaction.
        if not self._held.in_transaction or is_of_disk(error):
            raise EndedTransactionError(error) from error

    def _guarded(self) -> AbstractContextManager[None]:
        return translated()

    def _undo(self) -> None:
        if self._held.in_transaction:
            self._held.execute("ROLLBACK")

    def _begin(self) -> BegunTransaction[SqliteTransaction]:
        connection, clock = self._connected(), self._settings.clock
        connection.execute("BEGIN IMMEDIATE")
        # Read after the lock is taken, so that the order of commits is the order of time.
        now_ns = clock()

        def transaction(position: Position) -> SqliteTransaction:
            return SqliteTransaction(connection, clock, self._locks, position, now_ns)

        return BegunTransaction(executing(connection), now_ns, transaction)

    @override
    def _commit(self, transaction: SqliteTransaction) -> None:
        connection = self._held
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            was_refused = connection.in_transaction
            self.roll_back()
            if was_refused:
                raise translate(error) from error
            # The commit may be on disk and become visible at the next start, so this lane never continues the stream.
            self.drop()
            raise LedgerUnavailableError(COMMIT_UNKNOWN, reason=reason_of(error)) from error
        try:
            connection.require_in_place()
        except LedgerUnavailableError as error:
            # The commit is in a file that may never be the database again.
            self.drop()
            raise LedgerUnavailableError(COMMIT_ELSEWHERE) from error

    def _connected(self) -> FileConnection:
        if self._connection is None:
            self._connection = connect(self._path)
        self._connection.require_in_place()
        return self._connection


def _translated(error: Exception) -> Exception:
    return translate(error) if isinstance(error, sqlite3.Error) else error


_RULES: Final = GroupRules(max_group=128, rounds=2, translate=_translated)
