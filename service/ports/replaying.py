"""Replaying: the records that were delivered before, as a new sink gets them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from service.ports.delivering import OutboxRecord


class ReplayBegun(msgspec.Struct, frozen=True):
    """How many records an earlier run went through, how many of these were refused, and how many there are in all."""

    earlier: int
    refused: int
    total: int


class Replays(Protocol):
    """Everything that was delivered until now, for one sink. How far a run got is kept until one has ended.

    No cursor moves and no lease is needed: relays deliver beside it. Two runs for one sink at the same time send
    identical copies, and neither passes over a record.

    Raises (each method):
        TryLaterError: the database cannot be used now; nothing changed.
    """

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Go on where an earlier run for this sink stopped, or at the first record.

        What is committed from now on is left to the relays.

        Args:
            from_start: forget the earlier run.
        """
        ...

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records that were delivered, the same ones until `answered`; none at the end.

        Of each stream in order, and a checkpoint behind what it names, as long as no clock steps back. Parked records
        are left out. A single record larger than `max_bytes` comes alone.
        """
        ...

    def answered(self, refused: int) -> None:
        """Keep that the sink has answered for all that `next` returned, and refused so many until now."""
        ...

    def end(self) -> None:
        """Forget how far it got: the next run begins at the first record."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
