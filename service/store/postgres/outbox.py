"""The undelivered records as relays see them: a cursor a stream, moved under a lease and fenced by its epoch."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from service.errors import NotFoundError
from service.ports import Lag, OutboxRecord
from service.store.postgres.connection import Session
from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import SQL
from service.store.postgres.stream import LEASE_NS
from service.store.queries import Row
from telemetry import names

T = TypeVar("T")

_RENEW_NS: Final = 2_000_000_000
_TAKEN_AT_ONCE: Final = 64
"""How many leases are taken in one statement: enough to go on, and the other relays get their part."""


class PostgresOutbox:
    """Implements `service.ports.Outbox` for one relay, on a session of its own.

    Every method can be repeated after its answer was lost, which the session's pool does.
    """

    def __init__(self, url: str, owner: str) -> None:
        """Look at the outbox as `owner`, a name that no other relay ever has."""
        self._owner = owner
        self._turn = ""
        self._pool = SessionPool(url, read_only=False, size=1, prepare=SQL["relaxed"])

    def close(self) -> None:
        """Close the session; leases that were not given back end by themselves."""
        self._pool.close()

    def take(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records to deliver, of streams whose lease this relay holds or can take."""

        def take(session: Session) -> Sequence[OutboxRecord]:
            turn = {**self._lease(), "turn": self._turn}
            session.execute(SQL["take_streams"], {**turn, "limit": _TAKEN_AT_ONCE})
            taken: list[OutboxRecord] = []
            bytes_left = max_bytes
            for stream_id, cursor, epoch in session.execute(SQL["held_streams"], turn).fetchall():
                records_left = max_records - len(taken)
                records = _next(session, stream_id, cursor, epoch, records_left, bytes_left, is_first=not taken)
                taken += records
                bytes_left -= sum(len(record.log_record) for record in records)
                self._turn = stream_id
                if len(taken) >= max_records or bytes_left <= 0:
                    break
            return taken

        return self._pool.run(take)

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs."""
        values = {**self._lease(), "due_ns": LEASE_NS - _RENEW_NS // 2}
        self._pool.run(lambda session: session.execute(SQL["renew_streams"], values))

    def release(self) -> None:
        """Give all leases back, so that the next relay need not wait for them to end."""
        self._pool.run(lambda session: session.execute(SQL["release_streams"], self._lease()))

    def delivered(self, records: Sequence[OutboxRecord]) -> Sequence[str]:
        """Move the cursors over records that the sink acknowledged; returns the streams whose lease was lost."""
        ends: dict[str, tuple[OutboxRecord, OutboxRecord]] = {}
        for record in records:
            first, _ = ends.get(record.stream_id, (record, record))
            ends[record.stream_id] = (first, record)

        def move(session: Session) -> Sequence[str]:
            # In one order, so that relays which move the same cursors never wait for each other in a circle.
            return [stream_id for stream_id in sorted(ends) if not self._move(session, *ends[stream_id])]

        return self._in_transaction(move)

    def park(self, record: OutboxRecord, reason: str) -> bool:
        """Set the next record of a stream aside and move the cursor over it; False when the lease was lost."""

        def park(session: Session) -> bool:
            is_moved = self._move(session, record, record)
            if is_moved:
                session.execute(SQL["park"], {**_place(record), "reason": reason})
            return is_moved

        return self._in_transaction(park)

    def neighbour(self, record: OutboxRecord) -> OutboxRecord | None:
        """Return a record that was delivered: the nearest before it in its stream, else one of another stream."""
        rows = self._all("delivered_before", _place(record)) or self._all("delivered_elsewhere", _place(record))
        return outbox_record(rows[0]) if rows else None

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whoever holds them."""
        return [Lag(*row) for row in self._all("lagging_streams", self._lease())]

    def parked_count(self) -> int:
        """Return how many records are parked."""
        ((count,),) = self._all("parked_count", {})
        return int(count)

    def parked(self, after: OutboxRecord | None, limit: int) -> Sequence[OutboxRecord]:
        """Return the parked records behind `after`, ordered by stream and number."""
        behind = _place(after) if after else {"stream_id": "", "number": 0}
        return [outbox_record(row) for row in self._all("parked", {**behind, "limit": limit})]

    def unpark(self, record: OutboxRecord) -> None:
        """Say that a parked record was acknowledged by the sink after all."""
        self._pool.run(lambda session: session.execute(SQL["unpark"], _place(record)))

    def answered(self, record: OutboxRecord, reason: str) -> None:
        """Keep the sink's latest answer to a record that stays parked."""
        values = {**_place(record), "reason": reason}
        self._pool.run(lambda session: session.execute(SQL["answered"], values))

    def replay(self, stream_id: str, first: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return delivered records of a stream from `first` to its cursor, parked ones left out."""
        cursor = self._all("cursor", {"stream_id": stream_id})
        if not cursor:
            raise NotFoundError(f"there is no stream {stream_id}: `GET /v1/audit/streams` lists those there are")
        values = {"stream_id": stream_id, "first": first, "last": cursor[0][0], "limit": max_records}
        found: list[OutboxRecord] = []
        for row in self._all("delivered_from", values):
            record = outbox_record(row)
            max_bytes -= len(record.log_record)
            if max_bytes < 0 and found:
                break
            found.append(record)
        return found

    def _move(self, session: Session, first: OutboxRecord, last: OutboxRecord) -> bool:
        lease = {"stream_id": first.stream_id, "owner": self._owner, "epoch": first.epoch}
        moved = session.execute(SQL["move_cursor"], {**lease, "first": first.number, "last": last.number})
        return moved.rowcount == 1

    def _in_transaction(self, task: Callable[[Session], T]) -> T:
        def run(session: Session) -> T:
            with session.transaction():
                return task(session)

        return self._pool.run(run)

    def _lease(self) -> dict[str, object]:
        return {"owner": self._owner, "lease_ns": LEASE_NS}

    def _all(self, name: str, values: dict[str, Any]) -> Sequence[Row]:
        return self._pool.run(lambda session: session.execute(SQL[name], values, binary=True).fetchall())


def _next(
    session: Session, stream_id: str, after: int, epoch: int, max_records: int, max_bytes: int, *, is_first: bool
) -> Sequence[OutboxRecord]:
    values = {"stream_id": stream_id, "after": after, "limit": max_records, "max_bytes": max_bytes}
    found: list[OutboxRecord] = []
    for number, record_id, otlp, resource, scope, event_name in session.execute(
        SQL["undelivered"], values, binary=True
    ):
        max_bytes -= len(otlp)
        if max_bytes < 0 and (found or not is_first):
            break
        if event_name == names.EVENT_AUDIT_CHECKPOINT and _waits(session, stream_id, number):
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


def _waits(session: Session, stream_id: str, number: int) -> bool:
    ((waits,),) = session.execute(SQL["checkpoint_waits"], {"stream_id": stream_id, "number": number}).fetchall()
    return bool(waits)


def _place(record: OutboxRecord) -> dict[str, Any]:
    return {"stream_id": record.stream_id, "number": record.number}


def outbox_record(row: Row) -> OutboxRecord:
    """Return a row of stream, number, record id and the three messages as a record without a lease."""
    stream_id, number, record_id, otlp, resource, scope = row
    return OutboxRecord(
        stream_id=stream_id, number=number, record_id=record_id, log_record=otlp, resource=resource, scope=scope
    )
