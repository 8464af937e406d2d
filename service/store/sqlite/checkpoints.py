"""Checkpoints in a SQLite file: leases belong to processes, and file locks tell which processes are alive."""

from collections.abc import Callable, Iterator, Sequence

from service.store.checkpointing import CHECKPOINT_LEASE, Checkpoints
from service.store.leases import is_leased
from service.store.queries import Execute
from service.store.sqlite.connections import SharedConnection
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.leases import take_lease
from service.store.sqlite.transaction import SqliteTransaction
from telemetry.audit.signer import Signer


class SqliteCheckpoints(Checkpoints[SqliteTransaction]):
    """Writes checkpoints; other processes of this machine may do so too, one at a time."""

    def __init__(self, lane: SqliteLane, private_key: Callable[[str], Signer | None]) -> None:
        reading = SharedConnection(lane.path, read_only=True)
        super().__init__(lane, private_key, reading, SharedConnection(lane.path))
        self._locks = lane.locks

    def _take_lease(self, execute: Execute) -> bool:
        return take_lease(execute, CHECKPOINT_LEASE, self._locks, self._settings.clock())

    def _close_orphans(self, transaction: SqliteTransaction) -> Iterator[str]:
        now_ns = self._settings.clock()
        for stream_id, owner, alive_until_ns in self._open_streams(transaction):
            if not is_leased(alive_until_ns, now_ns) or not self._locks.is_alive(owner):
                transaction.execute("close_stream", {"stream_id": stream_id})
                yield stream_id

    def _at_work(self, transaction: SqliteTransaction) -> str:
        owners = [owner for _, owner, _ in self._open_streams(transaction) if self._locks.is_alive(owner)]
        return f"{', '.join(owners)} work on the database" if owners else ""

    def _open_streams(self, transaction: SqliteTransaction) -> Sequence[tuple[str, str, int]]:
        rows = transaction.execute("open_streams", {"own": transaction.tip.stream_id})
        return [(stream_id, owner, alive_until_ns) for stream_id, owner, alive_until_ns in rows]
