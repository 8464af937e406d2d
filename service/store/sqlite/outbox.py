"""The outbox in a SQLite file, for relays and for webhooks: file locks tell which processes with leases are alive."""

from collections.abc import Sequence
from pathlib import Path

from service.ports import Clock, Lag
from service.store.leases import LEASE_NS, is_leased
from service.store.outbox import DUE_NS, TAKEN_AT_ONCE, LedgerOutbox
from service.store.queries import Execute
from service.store.replays import LedgerReplays
from service.store.sqlite.connections import SharedConnection
from service.store.sqlite.leases import take_lease
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.reads import SqliteReads
from service.store.webhooks import LedgerWebhooks


class SqliteOutbox(LedgerOutbox):
    """Implements `service.ports.Outbox` for one relay, on a connection of its own."""

    def __init__(self, path: Path, locks: OwnerLocks, clock: Clock) -> None:
        super().__init__(SharedConnection(path, is_relaxed=True), locks.owner, clock)
        self._locks = locks

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        now_ns = self._clock()
        due = {"owner": self._owner, "now_ns": now_ns, "due_ns": now_ns + LEASE_NS - DUE_NS}
        needed = self._all("streams_to_renew", due)
        if needed:
            leases = [
                {"stream_id": stream_id, "owner": self._owner, "epoch": epoch, "until_ns": now_ns + LEASE_NS}
                for stream_id, epoch in needed
            ]
            self._connection.write(lambda execute: [execute("renew_cursor", lease) for lease in leases])

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whichever relay holds them."""
        now_ns = self._clock()
        return [
            Lag(
                stream_id,
                cursor,
                tip,
                is_closed=bool(closed),
                is_elsewhere=owner != self._owner and not self._is_free(owner, until_ns, now_ns),
                until_ns=until_ns,
            )
            for stream_id, cursor, tip, closed, owner, _, until_ns in self._all("lagging_cursors", {"turn": ""})
        ]

    def _held(self) -> Sequence[tuple[str, int, int]]:
        now_ns = self._clock()
        rows = self._all("lagging_cursors", {"turn": self._turn})
        free = [
            (stream_id, owner, epoch, until_ns)
            for stream_id, _, _, _, owner, epoch, until_ns in rows
            if self._is_free(owner, until_ns, now_ns)
        ]
        epochs = {
            stream_id: epoch
            for stream_id, _, _, _, owner, epoch, until_ns in rows
            if owner == self._owner and until_ns >= now_ns
        }
        epochs |= self._take_leases(free[:TAKEN_AT_ONCE], now_ns)
        return [(stream_id, cursor, epochs[stream_id]) for stream_id, cursor, *_ in rows if stream_id in epochs]

    def _take_leases(self, free: Sequence[tuple[str, str, int, int]], now_ns: int) -> dict[str, int]:
        if not free:
            return {}

        def take(execute: Execute) -> dict[str, int]:
            epochs: dict[str, int] = {}
            for stream_id, owner, epoch, until_ns in free:
                seen = {"stream_id": stream_id, "old_owner": owner, "old_epoch": epoch, "old_until_ns": until_ns}
                lease = {"owner": self._owner, "until_ns": now_ns + LEASE_NS}
                for (new_epoch,) in list(execute("take_stream", {**seen, **lease})):
                    epochs[stream_id] = new_epoch
            return epochs

        return self._connection.write(take)

    def _is_free(self, owner: str, until_ns: int, now_ns: int) -> bool:
        return not is_leased(until_ns, now_ns) or not self._locks.is_alive(owner)


class SqliteReplays(LedgerReplays):
    """Implements `service.ports.Replays`; records are ordered by their position in the file."""

    def __init__(self, path: Path, sink: str) -> None:
        super().__init__(SharedConnection(path, is_relaxed=True), sink, {"position": 0})


class SqliteWebhooks(LedgerWebhooks):
    """Implements `service.ports.WebhookOutbox` on a connection of its own; `close` also releases the owner."""

    def __init__(self, path: Path, owner: str, clock: Clock) -> None:
        self._locks = OwnerLocks(path, owner)
        super().__init__(
            SharedConnection(path, is_relaxed=True),
            owner,
            lambda execute, name: take_lease(execute, name, self._locks, clock()),
            clock,
            SqliteReads.dialect,
        )

    def close(self) -> None:
        """Close the connection, and release the owner: another process need not wait for the leases."""
        super().close()
        self._locks.release()
