"""The undelivered records, for relays: each stream has a cursor, moved under a lease and fenced by its epoch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from service.errors import NotFoundError
from service.ports import Clock, Lag, OutboxRecord, PendingOffer
from service.store.configurations import pending_offers
from service.store.connections import Transactions
from service.store.queries import Execute, Row, one
from telemetry import names

TAKEN_AT_ONCE: Final = 64
"""The most leases that one transaction takes: enough for this relay to work, and the rest for other relays."""
DUE_NS: Final = 1_000_000_000
"""A lease is renewed this long after it was taken, a tenth of its duration."""


class LedgerOutbox(ABC):
    """Implements `service.ports.Outbox` for one relay; subclasses add how leases are taken.

    Every method may be called again if its answer was lost.
    """

    def __init__(self, connection: Transactions, owner: str, clock: Clock) -> None:
        """Use the outbox as `owner`, a name that no other relay ever has."""
        self._connection = connection
        self._owner = owner
        self._clock = clock
        self._turn = ""

    @abstractmethod
    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""

    @abstractmethod
    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whichever relay holds them."""

    @abstractmethod
    def _held(self) -> Sequence[tuple[str, int, int]]:
        """Take leases, and return stream, cursor and epoch of all lagging streams that this relay holds, in turn."""

    def close(self) -> None:
        """Close the connection; leases that were not released end when their time is over."""
        self._connection.close()

    def take(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records to deliver, of streams whose lease this relay holds or can take."""
        held = self._held()

        def take(execute: Execute) -> Sequence[OutboxRecord]:
            taken: list[OutboxRecord] = []
            bytes_left = max_bytes
            for stream_id, cursor, epoch in held:
                records_left = max_records - len(taken)
                records = _next(execute, stream_id, cursor, epoch, records_left, bytes_left, is_first=not taken)
                taken += records
                bytes_left -= sum(len(record.log_record) for record in records)
                self._turn = stream_id
                if len(taken) >= max_records or bytes_left <= 0:
                    break
            return taken

        return self._connection.run(take) if held else []

    def release(self) -> None:
        """Give all leases back, so that the next relay need not wait for them to end."""
        self._connection.run(lambda execute: execute("release_streams", {"owner": self._owner}))

    def delivered(self, records: Sequence[OutboxRecord]) -> Sequence[str]:
        """Move the cursors over records that the sink acknowledged; returns the streams whose lease was lost."""
        ends: dict[str, tuple[OutboxRecord, OutboxRecord]] = {}
        for record in records:
            first, _ = ends.get(record.stream_id, (record, record))
            ends[record.stream_id] = (first, record)

        def move(execute: Execute) -> Sequence[str]:
            # Always in the same order, so that relays that move the same cursors cannot deadlock.
            return [stream_id for stream_id in sorted(ends) if not self._move(execute, *ends[stream_id])]

        return self._connection.write(move)

    def park(self, record: OutboxRecord, reason: str) -> bool:
        """Set the next record of a stream aside and move the cursor over it; False when the lease was lost."""

        def park(execute: Execute) -> bool:
            is_moved = self._move(execute, record, record)
            if is_moved:
                execute("park", {**_place(record), "reason": reason, "now_ns": self._clock()})
            return is_moved

        return self._connection.write(park)

    def neighbour(self, record: OutboxRecord) -> OutboxRecord | None:
        """Return a delivered record: the nearest one before it in its stream, or else one of another stream."""

        def look(execute: Execute) -> Row | None:
            place = _place(record)
            return one(execute("delivered_before", place)) or one(execute("delivered_elsewhere", place))

        row = self._connection.run(look)
        return outbox_record(row) if row else None

    def parked_count(self) -> int:
        """Return how many records are parked."""
        ((count,),) = self._all("parked_count", {})
        return int(count)

    def parked(self, after: OutboxRecord | None, limit: int) -> Sequence[OutboxRecord]:
        """Return the parked records behind `after`, ordered by stream and number."""
        behind = _place(after) if after else {"stream_id": "", "number": 0}
        return [outbox_record(row) for row in self._all("parked", {**behind, "limit": limit})]

    def unpark(self, record: OutboxRecord) -> None:
        """Change a parked record to a delivered one, after the sink acknowledged it."""
        self._connection.run(lambda execute: execute("unpark", _place(record)))

    def answered(self, record: OutboxRecord, reason: str) -> None:
        """Store the sink's latest answer to a record that stays parked."""
        self._connection.run(lambda execute: execute("answered", {**_place(record), "reason": reason}))

    def delivered_count(self, stream_id: str, first: int) -> int:
        """Return how many records `replay` would return in all."""
        row = one(self._all("delivered_count_from", {"stream_id": stream_id, "first": first}))
        if row is None:
            raise _no_stream(stream_id)
        return int(row[0])

    def replay(self, stream_id: str, first: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return delivered records of a stream from `first` to its cursor, without parked ones."""
        cursor = self._all("cursor", {"stream_id": stream_id})
        if not cursor:
            raise _no_stream(stream_id)
        values = {"stream_id": stream_id, "first": first, "last": cursor[0][0], "limit": max_records}
        found: list[OutboxRecord] = []
        for row in self._all("delivered_from", values):
            record = outbox_record(row)
            max_bytes -= len(record.log_record)
            if max_bytes < 0 and found:
                break
            found.append(record)
        return found

    def committed_behind(self, stream_id: str, number: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records of a stream behind a number, whichever relay holds its lease."""

        def read(execute: Execute) -> Sequence[OutboxRecord]:
            return _next(execute, stream_id, number, 0, max_records, max_bytes, is_first=True)

        return self._connection.run(read)

    def pending_offers(self) -> Sequence[PendingOffer]:
        """Return the changed configurations whose records were not offered yet to the sink before, oldest first."""
        return self._connection.run(pending_offers)

    def end_offer(self, number: int, answer: str | None) -> None:
        """Store that the offer of this configuration has ended."""
        values = {"number": number, "answer": answer, "now_ns": self._clock()}
        self._connection.run(lambda execute: execute("end_offer", values))

    def _move(self, execute: Execute, first: OutboxRecord, last: OutboxRecord) -> bool:
        lease = {"stream_id": first.stream_id, "owner": self._owner, "epoch": first.epoch}
        return one(execute("move_cursor", {**lease, "first": first.number, "last": last.number})) is not None

    def _all(self, name: str, values: Mapping[str, object]) -> Sequence[Row]:
        return self._connection.run(lambda execute: list(execute(name, values)))


def _no_stream(stream_id: str) -> NotFoundError:
    return NotFoundError(f"there is no stream {stream_id}: `GET /v1/audit/streams` lists those there are")


def outbox_record(row: Row) -> OutboxRecord:
    """Return the record of a row (stream, number, record id and the three messages), without a lease."""
    stream_id, number, record_id, otlp, resource, scope = row
    return OutboxRecord(
        stream_id=stream_id, number=number, record_id=record_id, log_record=otlp, resource=resource, scope=scope
    )


def _next(
    execute: Execute, stream_id: str, after: int, epoch: int, max_records: int, max_bytes: int, *, is_first: bool
) -> Sequence[OutboxRecord]:
    values = {"stream_id": stream_id, "after": after, "limit": max_records, "max_bytes": max_bytes}
    found: list[OutboxRecord] = []
    for number, record_id, otlp, resource, scope, event_name in list(execute("undelivered", values)):
        max_bytes -= len(otlp)
        if max_bytes < 0 and (found or not is_first):
            break
        if event_name == names.EVENT_AUDIT_CHECKPOINT and _waits(execute, stream_id, number):
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
    return found


def _waits(execute: Execute, stream_id: str, number: int) -> bool:
    """Tell whether a checkpoint has to wait for a record that it names."""
    ((waits,),) = execute("checkpoint_waits", {"stream_id": stream_id, "number": number})
    return bool(waits)


def _place(record: OutboxRecord) -> dict[str, object]:
    return {"stream_id": record.stream_id, "number": record.number}
