"""The undelivered records as relays see them: a cursor a stream, moved under a lease and fenced by its epoch."""

import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from service.errors import NotFoundError
from service.ports import Clock, Lag, OutboxRecord
from service.store.sqlite.connection import connect
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.stream import LEASE_NS, is_leased
from service.store.sqlite.transaction import SQL
from telemetry import names

_RENEW_NS: Final = 2_000_000_000
_TAKEN_AT_ONCE: Final = 64
"""How many leases are taken in one transaction: enough to go on, and the other relays get their part."""


class SqliteOutbox:
    """Implements `service.ports.Outbox` for one relay, on a connection of its own."""

    def __init__(self, path: Path, locks: OwnerLocks, clock: Clock) -> None:
        self._locks = locks
        self._clock = clock
        self._turn = ""
        self._lock = threading.Lock()
        self._connection = connect(path)
        self._connection.execute(SQL["relaxed"])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def take(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records to deliver, of streams whose lease this relay holds or can take."""
        taken: list[OutboxRecord] = []
        with self._using():
            for stream_id, cursor, epoch in self._held():
                records = self._next(stream_id, cursor, epoch, max_records - len(taken), max_bytes, is_first=not taken)
                taken += records
                max_bytes -= sum(len(record.log_record) for record in records)
                self._turn = stream_id
                if len(taken) >= max_records or max_bytes <= 0:
                    break
        return taken

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        now_ns = self._clock()
        due = {"owner": self._locks.owner, "now_ns": now_ns, "due_ns": now_ns + LEASE_NS - _RENEW_NS // 2}
        with self._using():
            needed = self._all("streams_to_renew", due)
            if not needed:
                return
            with self._writing():
                for stream_id, epoch in needed:
                    lease = {"stream_id": stream_id, "owner": self._locks.owner, "epoch": epoch}
                    self._execute("renew_cursor", {**lease, "until_ns": now_ns + LEASE_NS})

    def release(self) -> None:
        """Give all leases back, so that the next relay need not wait for them to end."""
        with self._using():
            self._execute("release_streams", {"owner": self._locks.owner})

    def delivered(self, records: Sequence[OutboxRecord]) -> Sequence[str]:
        """Move the cursors over records that the sink acknowledged; returns the streams whose lease was lost."""
        ends: dict[str, tuple[OutboxRecord, OutboxRecord]] = {}
        for record in records:
            first, _ = ends.get(record.stream_id, (record, record))
            ends[record.stream_id] = (first, record)
        with self._using(), self._writing():
            return [stream_id for stream_id, (first, last) in ends.items() if not self._move(first, last)]

    def park(self, record: OutboxRecord, reason: str) -> bool:
        """Set the next record of a stream aside and move the cursor over it; False when the lease was lost."""
        with self._using(), self._writing():
            is_moved = self._move(record, record)
            if is_moved:
                self._execute("park", {**_place(record), "reason": reason, "parked_ns": self._clock()})
        return is_moved

    def neighbour(self, record: OutboxRecord) -> OutboxRecord | None:
        """Return a record that was delivered: the nearest before it in its stream, else one of another stream."""
        with self._using():
            others = self._all("other_cursors", {"stream_id": record.stream_id})
            for stream_id, number in [(record.stream_id, record.number), *((one, last + 1) for one, last in others)]:
                for row in self._all("last_delivered", {"stream_id": stream_id, "number": number}):
                    return outbox_record(row)
        return None

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whoever holds them."""
        with self._using():
            now_ns = self._clock()
            return [
                Lag(
                    stream_id,
                    cursor,
                    tip,
                    is_closed=bool(closed),
                    is_elsewhere=owner != self._locks.owner and not self._is_free(owner, until_ns, now_ns),
                    until_ns=until_ns,
                )
                for stream_id, cursor, tip, closed, owner, _, until_ns in self._all("lagging_streams", {"turn": ""})
            ]

    def parked_count(self) -> int:
        """Return how many records are parked."""
        with self._using():
            ((count,),) = self._all("parked_count", {})
        return int(count)

    def parked(self, after: OutboxRecord | None, limit: int) -> Sequence[OutboxRecord]:
        """Return the parked records behind `after`, ordered by stream and number."""
        behind = _place(after) if after else {"stream_id": "", "number": 0}
        with self._using():
            return [outbox_record(row) for row in self._all("parked", {**behind, "limit": limit})]

    def unpark(self, record: OutboxRecord) -> None:
        """Say that a parked record was acknowledged by the sink after all."""
        with self._using():
            self._execute("unpark", _place(record))

    def answered(self, record: OutboxRecord, reason: str) -> None:
        """Keep the sink's latest answer to a record that stays parked."""
        with self._using():
            self._execute("answered", {**_place(record), "reason": reason})

    def replay(self, stream_id: str, first: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return delivered records of a stream from `first` to its cursor, parked ones left out."""
        found: list[OutboxRecord] = []
        with self._using():
            cursor = self._all("cursor", {"stream_id": stream_id})
            if not cursor:
                raise NotFoundError(f"there is no stream {stream_id}: `GET /v1/audit/streams` lists those there are")
            values = {"stream_id": stream_id, "first": first, "last": cursor[0][0], "limit": max_records}
            for row in self._execute("delivered_from", values):
                record = outbox_record(row)
                max_bytes -= len(record.log_record)
                if max_bytes < 0 and found:
                    break
                found.append(record)
        return found

    def _held(self) -> Iterator[tuple[str, int, int]]:
        """Yield stream, cursor and epoch of what lags and is this relay's, or becomes it, whose turn it is first."""
        now_ns = self._clock()
        rows = self._all("lagging_streams", {"turn": self._turn})
        free = [
            (stream_id, owner, epoch, until_ns)
            for stream_id, _, _, _, owner, epoch, until_ns in rows
            if self._is_free(owner, until_ns, now_ns)
        ]
        epochs = self._take_leases(free[:_TAKEN_AT_ONCE], now_ns)
        for stream_id, cursor, _, _, owner, epoch, until_ns in rows:
            if stream_id in epochs:
                yield stream_id, cursor, epochs[stream_id]
            elif owner == self._locks.owner and until_ns >= now_ns:
                yield stream_id, cursor, epoch

    def _take_leases(self, free: Sequence[tuple[str, str, int, int]], now_ns: int) -> dict[str, int]:
        epochs: dict[str, int] = {}
        if not free:
            return epochs
        with self._writing():
            for stream_id, owner, epoch, until_ns in free:
                seen = {"stream_id": stream_id, "old_owner": owner, "old_epoch": epoch, "old_until_ns": until_ns}
                lease = {"owner": self._locks.owner, "until_ns": now_ns + LEASE_NS}
                for (new_epoch,) in self._all("take_stream", {**seen, **lease}):
                    epochs[stream_id] = new_epoch
        return epochs

    def _is_free(self, owner: str, until_ns: int, now_ns: int) -> bool:
        return not is_leased(until_ns, now_ns) or not self._locks.is_alive(owner)

    def _next(
        self, stream_id: str, after: int, epoch: int, max_records: int, max_bytes: int, *, is_first: bool
    ) -> Sequence[OutboxRecord]:
        found: list[OutboxRecord] = []
        rows = self._execute("undelivered", {"stream_id": stream_id, "after": after, "limit": max_records})
        for number, record_id, otlp, resource, scope, event_name in rows:
            max_bytes -= len(otlp)
            if max_bytes < 0 and (found or not is_first):
                break
            if event_name == names.EVENT_AUDIT_CHECKPOINT and self._waits(stream_id, number):
                break
            found.append(
                OutboxRecord(
                    stream_id=stream_id,
                    number=number,
                    record_id=record_id,
                    log_record=otlp,
                    resource=resource,
                    scope=scope,
                    epoch=epoch,
                )
            )
        rows.close()
        return found

    def _waits(self, stream_id: str, number: int) -> bool:
        ((waits,),) = self._all("checkpoint_waits", {"stream_id": stream_id, "number": number})
        return bool(waits)

    def _move(self, first: OutboxRecord, last: OutboxRecord) -> bool:
        lease = {"stream_id": first.stream_id, "owner": self._locks.owner, "epoch": first.epoch}
        return self._execute("move_cursor", {**lease, "first": first.number, "last": last.number}).rowcount == 1

    @contextmanager
    def _using(self) -> Generator[None]:
        # Else the cursors of a file that was replaced would be moved, and nothing of the new one be delivered.
        with self._lock, self._connection.in_place():
            yield

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

    def _execute(self, name: str, values: dict[str, Any]) -> sqlite3.Cursor:
        return self._connection.execute(SQL[name], values)

    def _all(self, name: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._execute(name, values).fetchall()


def _place(record: OutboxRecord) -> dict[str, Any]:
    return {"stream_id": record.stream_id, "number": record.number}


def outbox_record(row: tuple[Any, ...]) -> OutboxRecord:
    """Return a row of stream, number, record id and the three messages as a record without a lease."""
    stream_id, number, record_id, otlp, resource, scope = row
    return OutboxRecord(
        stream_id=stream_id, number=number, record_id=record_id, log_record=otlp, resource=resource, scope=scope
    )
