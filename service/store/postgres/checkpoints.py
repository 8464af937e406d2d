"""Checkpoints in a PostgreSQL database: the database's clock decides about leases."""

from collections.abc import Callable, Iterator

from service.store.checkpointing import CHECKPOINT_LEASE, Checkpoints
from service.store.leases import LEASE_NS
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.pool import SessionPool
from service.store.postgres.transaction import PostgresTransaction
from service.store.queries import Execute, one
from telemetry.audit.signer import Signer


class PostgresCheckpoints(Checkpoints[PostgresTransaction]):
    """Writes checkpoints; processes of any machine may do so too, one at a time."""

    def __init__(self, lanes: PostgresLanes, private_key: Callable[[str], Signer | None]) -> None:
        reading, writing = (SessionPool(lanes.url, read_only=read_only, size=1) for read_only in (True, False))
        super().__init__(lanes, private_key, reading, writing)

    def _take_lease(self, execute: Execute) -> bool:
        values = {"name": CHECKPOINT_LEASE, "owner": self._settings.owner, "lease_ns": LEASE_NS}
        return one(execute("take_lease", values)) is not None

    def _close_orphans(self, transaction: PostgresTransaction) -> Iterator[str]:
        """Close the streams of dead processes, each locked first.

        A lane in the middle of a commit holds the lock. If its commit lasts longer than its lease, its session is
        stuck, and is ended here. Its process repeats the uncommitted work in another stream.
        """
        execute = transaction.execute
        own = {"own": transaction.tip.stream_id, "lease_ns": LEASE_NS}
        for stream_id, session in list(execute("orphaned_streams", own)):
            values = {"stream_id": stream_id, "lease_ns": LEASE_NS}
            if one(execute("close_orphan", values)) is None:
                execute("end_session", {"session": session})
                if one(execute("close_orphan", values)) is None:
                    # Another process closed, renewed or locked the stream meanwhile: the next checkpoint tries again.
                    continue
            yield stream_id

    def _at_work(self, transaction: PostgresTransaction) -> str:
        own = {"own": transaction.tip.stream_id, "lease_ns": LEASE_NS}
        at_work = list(transaction.execute("streams_at_work", own))
        return f"{len(at_work)} streams are at work" if at_work else ""
