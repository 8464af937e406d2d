"""The open transaction of the SQLite lane, as far as it differs from that of PostgreSQL."""

import sqlite3
from collections.abc import Mapping

from service.ports import Clock
from service.store.queries import one
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.statements import executing
from service.store.writing import LedgerTransaction, Position


class SqliteTransaction(LedgerTransaction):
    """A transaction that has begun, and so holds the only lock for writing."""

    violation = sqlite3.IntegrityError

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, locks: OwnerLocks, position: Position, now_ns: int
    ) -> None:
        super().__init__(executing(connection), clock, position, now_ns)
        self._locks = locks

    def _is_alive(self, worker_id: str) -> bool:
        return self._locks.is_alive(worker_id)

    def time_ns(self) -> int:
        """Return the time now."""
        return self._clock()

    def _is_number_taken(self, error: Exception, values: Mapping[str, object]) -> bool:
        del error
        return one(self.execute("number_is_taken", values)) is not None
