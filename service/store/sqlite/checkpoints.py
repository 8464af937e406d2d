"""Checkpoints in a SQLite file: connections beside the lane's, and leases of processes whose locks tell who lives."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import LedgerBusyError
from service.store.checkpointing import CHECKPOINT_LEASE, Checkpoints
from service.store.leases import LEASE_NS, is_leased
from service.store.queries import Execute, one
from service.store.sqlite.connection import connect
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.statements import executing
from service.store.sqlite.transaction import SqliteTransaction
from telemetry.audit.signer import Signer

R = TypeVar("R")


class SqliteCheckpoints(Checkpoints[SqliteTransaction]):
    """Implements `service.ports.CheckpointWriter` for one process."""

    def __init__(self, lane: SqliteLane, private_key: Callable[[str], Signer | None]) -> None:
        super().__init__(lane, private_key)
        self._locks = lane.locks
        self._connection = connect(lane.path)
        self._reading = connect(lane.path, read_only=True)

    def close(self) -> None:
        """Close the connections."""
        # The last connection puts what is in the WAL into the database file, which one that only reads cannot.
        self._reading.close()
        self._connection.close()

    def _read(self, work: Callable[[Execute], R]) -> R:
        with self._reading.in_place() as reading:
            reading.execute("BEGIN")
            try:
                return work(executing(reading))
            finally:
                reading.execute("ROLLBACK")

    def _change(self, work: Callable[[Execute], R]) -> R:
        with self._connection.in_place() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                value = work(executing(connection))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return value

    def _lock(self, execute: Execute) -> None:
        """A transaction that writes has the only lock for writing."""

    def _take_lease(self, execute: Execute) -> bool:
        own, now_ns = self._settings.owner, self._settings.clock()
        row = one(execute("lease", {"name": CHECKPOINT_LEASE}))
        if row is not None:
            owner, until_ns = row
            if owner != own and is_leased(until_ns, now_ns) and self._locks.is_alive(owner):
                return False
        execute("put_lease", {"name": CHECKPOINT_LEASE, "owner": own, "until_ns": now_ns + LEASE_NS})
        return True

    def _close_orphans(self, transaction: SqliteTransaction) -> Sequence[str]:
        now_ns = self._settings.clock()
        closed: list[str] = []
        for stream_id, owner, alive_until_ns in self._open_streams(transaction):
            if not is_leased(alive_until_ns, now_ns) or not self._locks.is_alive(owner):
                transaction.execute("close_stream", {"stream_id": stream_id})
                closed.append(stream_id)
        return closed

    def _end_streams(self, transaction: SqliteTransaction) -> Sequence[str]:
        at_work = [owner for _, owner, _ in self._open_streams(transaction) if self._locks.is_alive(owner)]
        if at_work:
            raise LedgerBusyError(f"{', '.join(at_work)} work on the database: stop every process first")
        return [stream_id for (stream_id,) in transaction.execute("end_streams", {"own": transaction.tip.stream_id})]

    def _open_streams(self, transaction: SqliteTransaction) -> Sequence[tuple[str, str, int]]:
        rows = transaction.execute("open_streams", {"own": transaction.tip.stream_id})
        return [(stream_id, owner, alive_until_ns) for stream_id, owner, alive_until_ns in rows]
