"""Checkpoints in a PostgreSQL database: leases are judged by the database's clock."""

from collections.abc import Callable, Iterator

from service.store.checkpointing import CHECKPOINT_LEASE, Checkpoints
from service.store.leases import LEASE_NS
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.pool import SessionPool
from service.store.postgres.transaction import PostgresTransaction
from service.store.queries import Execute, one
from telemetry.audit.signer import Signer


class PostgresCheckpoints(Checkpoints[PostgresTransaction]):
    """Writes checkpoints beside processes of any machine."""

    def __init__(self, lanes: PostgresLanes, private_key: Callable[[str], Signer | None]) -> None:
        reading, writing = (SessionPool(lanes.url, read_only=read_only, size=1) for read_only in (True, False))
        super().__init__(lanes, private_key, reading, writing)

    def _take_lease(self, execute: Execute) -> bool:
        values = {"name": CHECKPOINT_LEASE, "owner": self._settings.owner, "lease_ns": LEASE_NS}
        return one(execute("take_lease", values)) is not None

    def _close_orphans(self, transaction: PostgresTransaction) -> Iterator[str]:
        """Close the streams of dead processes, each locked first.

        A lane in the middle of a commit holds the lock. A session that has not ended its commit when its lease ends
        is stuck, and is ended here. Its process does again, in another stream, what was not committed.
        """
        execute = transaction.execute
        own = {"own": transaction.tip.stream_id, "lease_ns": LEASE_NS}
        for stream_id, session in list(execute("orphaned_streams", own)):
            values = {"stream_id": stream_id, "lease_ns": LEASE_NS}
            if one(execute("close_orphan", values)) is None:
                execute("end_session", {"session": session})
                if one(execute("close_orphan", values)) is None:
                    # Closed, renewed or locked by another process meanwhile: the next checkpoint looks again.
                    continue
            yield stream_id

    def _at_work(self, transaction: PostgresTransaction) -> str:
        own = {"own": transaction.tip.stream_id, "lease_ns": LEASE_NS}
        at_work = list(transaction.execute("streams_at_work", own))
        return f"{len(at_work)} streams are at work" if at_work else ""
