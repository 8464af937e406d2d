"""The outbox in a SQLite file: one connection, and leases of processes whose locks tell who lives."""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from service.ports import Clock, Lag
from service.store.leases import LEASE_NS, is_leased
from service.store.outbox import DUE_NS, TAKEN_AT_ONCE, LedgerOutbox
from service.store.queries import Execute
from service.store.sqlite.connection import connect
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.statements import SQL, executing

T = TypeVar("T")


class SqliteOutbox(LedgerOutbox):
    """Implements `service.ports.Outbox` for one relay, on a connection of its own."""

    def __init__(self, path: Path, locks: OwnerLocks, clock: Clock) -> None:
        super().__init__(locks.owner, clock)
        self._locks = locks
        self._lock = threading.Lock()
        self._connection = connect(path)
        self._connection.execute(SQL["relaxed"])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        now_ns = self._clock()
        due = {"owner": self._owner, "now_ns": now_ns, "due_ns": now_ns + LEASE_NS - DUE_NS}

        def renew(execute: Execute) -> None:
            needed = list(execute("streams_to_renew", due))
            if not needed:
                return
            with self._writing():
                for stream_id, epoch in needed:
                    lease = {"stream_id": stream_id, "owner": self._owner, "epoch": epoch}
                    execute("renew_cursor", {**lease, "until_ns": now_ns + LEASE_NS})

        self._run(renew)

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whoever holds them."""
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

    def _run(self, work: Callable[[Execute], T]) -> T:
        # Else the cursors of a file that was replaced would be moved, and nothing of the new one be delivered.
        with self._lock, self._connection.in_place() as connection:
            return work(executing(connection))

    def _write(self, work: Callable[[Execute], T]) -> T:
        def write(execute: Execute) -> T:
            with self._writing():
                return work(execute)

        return self._run(write)

    def _held(self, execute: Execute) -> Iterable[tuple[str, int, int]]:
        now_ns = self._clock()
        rows = list(execute("lagging_cursors", {"turn": self._turn}))
        free = [
            (stream_id, owner, epoch, until_ns)
            for stream_id, _, _, _, owner, epoch, until_ns in rows
            if self._is_free(owner, until_ns, now_ns)
        ]
        epochs = self._take_leases(execute, free[:TAKEN_AT_ONCE], now_ns)
        for stream_id, cursor, _, _, owner, epoch, until_ns in rows:
            if stream_id in epochs:
                yield stream_id, cursor, epochs[stream_id]
            elif owner == self._owner and until_ns >= now_ns:
                yield stream_id, cursor, epoch

    def _take_leases(self, execute: Execute, free: Sequence[tuple[str, str, int, int]], now_ns: int) -> dict[str, int]:
        epochs: dict[str, int] = {}
        if not free:
            return epochs
        with self._writing():
            for stream_id, owner, epoch, until_ns in free:
                seen = {"stream_id": stream_id, "old_owner": owner, "old_epoch": epoch, "old_until_ns": until_ns}
                lease = {"owner": self._owner, "until_ns": now_ns + LEASE_NS}
                for (new_epoch,) in list(execute("take_stream", {**seen, **lease})):
                    epochs[stream_id] = new_epoch
        return epochs

    def _is_free(self, owner: str, until_ns: int, now_ns: int) -> bool:
        return not is_leased(until_ns, now_ns) or not self._locks.is_alive(owner)

    @contextmanager
    def _writing(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
