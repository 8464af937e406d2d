"""The outbox in a PostgreSQL database, for relays and for webhooks: the database's clock decides about leases."""

from collections.abc import Sequence

from service.ports import Clock, Lag
from service.store.leases import LEASE_NS
from service.store.outbox import DUE_NS, TAKEN_AT_ONCE, LedgerOutbox
from service.store.postgres.pool import SessionPool
from service.store.postgres.reads import PostgresReads
from service.store.postgres.statements import SQL
from service.store.queries import Execute, Row, one
from service.store.replays import LedgerReplays
from service.store.webhooks import LedgerWebhooks


class PostgresOutbox(LedgerOutbox):
    """Implements `service.ports.Outbox` for one relay, on a session of its own."""

    def __init__(self, url: str, owner: str, clock: Clock) -> None:
        super().__init__(_relaxed(url), owner, clock)
        self._lease = {"owner": owner, "lease_ns": LEASE_NS}

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        due = {**self._lease, "due_ns": LEASE_NS - DUE_NS}
        self._connection.run(lambda execute: execute("renew_streams", due))

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whichever relay holds them."""
        return [Lag(*row) for row in self._all("lagging_streams", self._lease)]

    def _held(self) -> Sequence[tuple[str, int, int]]:
        turn = {**self._lease, "turn": self._turn}

        def hold(execute: Execute) -> Sequence[Row]:
            execute("take_streams", {**turn, "limit": TAKEN_AT_ONCE})
            return list(execute("held_streams", turn))

        return [(stream_id, cursor, epoch) for stream_id, cursor, epoch in self._connection.run(hold)]


class PostgresReplays(LedgerReplays):
    """Implements `service.ports.Replays`; records are ordered by their observed time."""

    def __init__(self, url: str, sink: str) -> None:
        super().__init__(_relaxed(url), sink, {"observed_ns": 0, "stream_id": ""})


class PostgresWebhooks(LedgerWebhooks):
    """Implements `service.ports.WebhookOutbox` for one process, on a session of its own."""

    def __init__(self, url: str, owner: str, clock: Clock) -> None:
        lease = {"owner": owner, "lease_ns": LEASE_NS}

        def take(execute: Execute, name: str) -> bool:
            return one(execute("take_lease", {**lease, "name": name})) is not None

        super().__init__(_relaxed(url), owner, take, clock, PostgresReads.dialect)


def _relaxed(url: str) -> SessionPool:
    return SessionPool(url, read_only=False, size=1, prepare=SQL["relaxed"])
