"""Delivering: the committed records for the relays, and the delivered records for a new sink."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from service.ports.configuring import PendingOffer
from telemetry.audit.request import StoredBytes


class OutboxRecord(StoredBytes, frozen=True, kw_only=True, gc=False):
    """A committed record as it is delivered: its place in its stream, and its stored bytes.

    `epoch` is the epoch of the lease under which the record was taken. The outbox ignores reports under another epoch.
    """

    stream_id: str
    number: int
    record_id: str
    epoch: int = 0


class Lag(msgspec.Struct, frozen=True):
    """A stream with undelivered records: the number of its cursor, and the number of its last committed record.

    With `is_elsewhere` another relay holds its lease. The lease ends at `until_ns` unless that relay renews it.
    When a stream `is_closed`, only the stopping process that closed it adds records to it, and only checkpoints.
    """

    stream_id: str
    delivered: int
    committed: int
    is_closed: bool
    is_elsewhere: bool
    until_ns: int


class Outbox(Protocol):
    """The undelivered committed records, for one relay; several relays may share the work.

    Each stream has a cursor: every record at or before it was acknowledged in full, or is parked. A relay works on a
    stream under a lease with an epoch, which grows whenever another relay takes the lease. Promised at any crash:
    a cursor only moves forward; it never passes a record that was neither acknowledged nor parked; only the relay with
    the current epoch moves it. So a record that was not acknowledged is taken again, by this relay or another.

    Several threads may call the methods.

    Raises (each method):
        TryLaterError: the database cannot be used now; nothing changed.
    """

    def take(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records to deliver, from streams whose lease this relay holds or can take.

        The records of a stream follow its cursor in order and without gaps; streams take turns. A checkpoint is
        returned only when every record that it names is at or before the cursor of its stream, so never together with
        one of them. A single record larger than `max_bytes` is returned alone.
        """
        ...

    def renew(self) -> None:
        """Extend the leases that this relay holds and needs. They end after 10 s, so call this every 2 s."""
        ...

    def release(self) -> None:
        """Give all leases back, so that the next relay does not wait until they end."""
        ...

    def delivered(self, records: Sequence[OutboxRecord]) -> Sequence[str]:
        """Move the cursors over records that the sink acknowledged, all in one transaction.

        Args:
            records: the records of each stream in order and without gaps, beginning after its cursor.

        Returns:
            The streams whose lease was lost: their cursors did not move, and another relay sends these records again.
        """
        ...

    def park(self, record: OutboxRecord, reason: str) -> bool:
        """Park the next record of a stream with the sink's answer, and move the cursor over it, in one transaction.

        Return False when the lease was lost; then nothing changed.
        """
        ...

    def neighbour(self, record: OutboxRecord) -> OutboxRecord | None:
        """Return a delivered record: the nearest one before `record` in its stream, else one of another stream.

        Return None when nothing was delivered yet.
        """
        ...

    def backlog(self) -> Sequence[Lag]:
        """Return all streams with undelivered records, also those whose lease another relay holds."""
        ...

    def parked_count(self) -> int:
        """Return how many records are parked."""
        ...

    def parked(self, after: OutboxRecord | None, limit: int) -> Sequence[OutboxRecord]:
        """Return the parked records after `after`, ordered by stream and number; no lease is needed."""
        ...

    def unpark(self, record: OutboxRecord) -> None:
        """Store that the sink acknowledged a parked record after all; it counts as delivered from now on."""
        ...

    def answered(self, record: OutboxRecord, reason: str) -> None:
        """Store the sink's latest answer to a record that stays parked."""
        ...

    def delivered_count(self, stream_id: str, first: int) -> int:
        """Return how many records `replay` would return in all.

        Raises:
            NotFoundError: there is no such stream.
        """
        ...

    def replay(self, stream_id: str, first: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the delivered records of a stream from `first` to its cursor, without parked ones; nothing changes.

        Raises:
            NotFoundError: there is no such stream.
        """
        ...

    def committed_behind(self, stream_id: str, number: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records of a stream behind a number, whichever relay holds its lease; nothing changes.

        They end before a checkpoint that names undelivered records. A record larger than `max_bytes` is returned alone.
        """
        ...

    def pending_offers(self) -> Sequence[PendingOffer]:
        """Return the changed configurations whose records were not offered yet to the sink before, oldest first."""
        ...

    def end_offer(self, number: int, answer: str | None) -> None:
        """Store that the offer of this configuration has ended; `answer` is why the sink did not take it, or None."""
        ...

    def close(self) -> None:
        """Close the connection; a lease that was not given back ends by itself."""
        ...


class ReplayBegun(msgspec.Struct, frozen=True):
    """The number of records that an earlier run sent, how many of them were refused, and how many there are in all."""

    earlier: int
    refused: int
    total: int


class Replays(Protocol):
    """All records that were delivered until now, for one new sink. The place of a run is stored until a run has ended.

    No cursor moves and no lease is needed, so relays deliver at the same time. Two runs for one sink at the same time
    send identical copies, and neither leaves out a record.

    Raises (each method):
        TryLaterError: the database cannot be used now; nothing changed.
    """

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Continue where an earlier run for this sink stopped, or begin at the first record.

        Records that are committed from now on are left to the relays.

        Args:
            from_start: begin at the first record in any case.
        """
        ...

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next delivered records, the same ones until `answered` is called; at the end, none.

        The records of a stream come in order. A checkpoint comes after the records that it names, as long as no clock
        steps back. Parked records are left out. A single record larger than `max_bytes` is returned alone.
        """
        ...

    def answered(self, refused: int) -> None:
        """Store that the sink answered to all records of the last `next`, and how many it has refused until now."""
        ...

    def end(self) -> None:
        """Delete the stored place: the next run begins at the first record."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
