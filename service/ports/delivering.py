"""Delivering: the committed records as relays see them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class OutboxRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A committed record as it is shipped: its place, and its bytes as stored.

    `epoch` is that of the lease under which it was taken; without it nothing that is said of the record counts.
    """

    stream_id: str
    number: int
    record_id: str
    log_record: bytes
    resource: bytes
    scope: bytes
    epoch: int = 0


class Lag(msgspec.Struct, frozen=True):
    """A stream with undelivered records: the number of its cursor and that of its last committed record.

    `is_elsewhere` when another relay holds its lease, which ends at `until_ns` unless that relay lives and renews it.
    To one that `is_closed` nothing is added any more but checkpoints of the process that closed it, which is stopping.
    """

    stream_id: str
    delivered: int
    committed: int
    is_closed: bool
    is_elsewhere: bool
    until_ns: int


class Outbox(Protocol):
    """The committed records that are to be delivered, as one relay sees them; several relays may share them.

    A stream has a cursor: what is at or before it was acknowledged in full, or is parked. A relay works on a stream
    under a lease with an epoch, which grows whenever the lease changes hands. Promised, whatever relays do and wherever
    they die: a cursor moves forward only, never over a record that nobody answered for, and only by the relay whose
    epoch it is; so a record that was not acknowledged is taken again, by this relay or by another.

    Methods may be called from several threads.

    Raises (each method):
        TryLaterError: the database cannot be used now; nothing changed.
    """

    def take(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records to deliver, of streams whose lease this relay holds or can take.

        Per stream they follow its cursor in order and without gaps; streams take turns. A checkpoint is returned only
        when every record that it names lies at or before the cursor of its stream, and therefore never together with
        one of them. A single record larger than `max_bytes` comes alone.
        """
        ...

    def renew(self) -> None:
        """Extend the leases that this relay holds and still needs: to be called every 2 s, they end after 10 s."""
        ...

    def release(self) -> None:
        """Give all leases back, so that the next relay need not wait for them to end."""
        ...

    def delivered(self, records: Sequence[OutboxRecord]) -> Sequence[str]:
        """Move the cursors over records that the sink acknowledged, all in one transaction.

        Args:
            records: of each stream in order, without gaps, from its cursor on.

        Returns:
            The streams whose lease was lost: their cursors did not move, and another relay sends these records again.
        """
        ...

    def park(self, record: OutboxRecord, reason: str) -> bool:
        """Set the next record of a stream aside with the sink's answer and move the cursor over it, in one transaction.

        False when the lease was lost: nothing changed.
        """
        ...

    def neighbour(self, record: OutboxRecord) -> OutboxRecord | None:
        """Return a record that was delivered: the nearest before it in its stream, else one of another stream.

        None when nothing was delivered yet.
        """
        ...

    def backlog(self) -> Sequence[Lag]:
        """Return the streams with undelivered records, whoever holds them."""
        ...

    def parked_count(self) -> int:
        """Return how many records are parked."""
        ...

    def parked(self, after: OutboxRecord | None, limit: int) -> Sequence[OutboxRecord]:
        """Return the parked records behind `after`, ordered by stream and number; no lease is needed."""
        ...

    def unpark(self, record: OutboxRecord) -> None:
        """Say that a parked record was acknowledged by the sink after all; it counts as delivered from now on."""
        ...

    def answered(self, record: OutboxRecord, reason: str) -> None:
        """Keep the sink's latest answer to a record that stays parked."""
        ...

    def replay(self, stream_id: str, first: int, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return delivered records of a stream from `first` to its cursor, parked ones left out; nothing changes.

        Raises:
            NotFoundError: there is no such stream.
        """
        ...

    def close(self) -> None:
        """Close the connection; leases that were not given back end by themselves."""
        ...
