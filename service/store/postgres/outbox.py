"""The outbox in a PostgreSQL database: one session, and leases by the database's clock."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from service.ports import Clock, Lag
from service.store.leases import LEASE_NS
from service.store.outbox import DUE_NS, TAKEN_AT_ONCE, LedgerOutbox
from service.store.postgres.connection import Session
from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import SQL, executing
from service.store.queries import Execute

T = TypeVar("T")


class PostgresOutbox(LedgerOutbox):
    """Implements `service.ports.Outbox` for one relay, on a session of its own."""

    def __init__(self, url: str, owner: str, clock: Clock) -> None:
        super().__init__(owner, clock)
        self._pool = SessionPool(url, read_only=False, size=1, prepare=SQL["relaxed"])

    def close(self) -> None:
        """Close the session; leases that were not given back end by themselves."""
        self._pool.close()

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        values = {**self._lease(), "due_ns": LEASE_NS - DUE_NS}
        self._run(lambda execute: execute("renew_streams", values))

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whoever holds them."""
        return [Lag(*row) for row in self._all("lagging_streams", self._lease())]

    def _run(self, work: Callable[[Execute], T]) -> T:
        return self._pool.run(lambda session: work(executing(session)))

    def _write(self, work: Callable[[Execute], T]) -> T:
        def write(session: Session) -> T:
            with session.transaction():
                return work(executing(session))

        return self._pool.run(write)

    def _held(self, execute: Execute) -> Iterable[tuple[str, int, int]]:
        turn = {**self._lease(), "turn": self._turn}
        execute("take_streams", {**turn, "limit": TAKEN_AT_ONCE})
        return [(stream_id, cursor, epoch) for stream_id, cursor, epoch in execute("held_streams", turn)]

    def _lease(self) -> dict[str, object]:
        return {"owner": self._owner, "lease_ns": LEASE_NS}
