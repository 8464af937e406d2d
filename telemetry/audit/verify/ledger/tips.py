"""Step 9 of the verification: each tip of a stream exists with its hash, and its leaves are those of the records."""

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.ledger.coverage import Anchor
from telemetry.audit.verify.record.rows import DIGEST

_FLUSH_BYTES: Final = 1 << 16
_NEVER: Final = 2**64

TipFault = tuple[Fault, int, bytes | None]
"""What is wrong, at which number, and the row that shows it if there is one."""


class Tips:
    """Compares the records of one stream, by number, with the tips that checkpoints name of it."""

    def __init__(self, anchors: Iterator[Anchor], begin: int, complete_until: int) -> None:
        """Begin behind the number `begin`; up to the checkpoint `complete_until` none is missing."""
        self._anchors = anchors
        self._ahead: deque[Anchor] = deque()
        self._complete_until = complete_until
        self._begin = begin
        self._covered_until = begin
        self._hash = hashlib.sha256()
        self._unhashed = bytearray()
        self._count = 0
        self._anchor = self._next()
        self._first = _NEVER if self._anchor is None else self._anchor.first
        self.number = _NEVER if self._anchor is None else self._anchor.number
        """The number of the next tip."""
        self.end: int | None = None
        """The number of the first closed tip so far."""

    def add(self, number: int, row: bytes) -> None:
        """Take the next record; `skip` is due before if its number is above that of the next tip, `meet` at it."""
        if number >= self._first:
            self._count += 1
            self._unhashed += row[DIGEST]
            if len(self._unhashed) >= _FLUSH_BYTES:
                self._hash.update(self._unhashed)
                self._unhashed.clear()

    def digests(self, number: int) -> list[bytes]:
        """Return the hashes that checkpoints name for a number that is still to come."""
        while not self._ahead or self._ahead[-1].number <= number:
            following = next(self._anchors, None)
            if following is None:
                break
            self._ahead.append(following)
        known = self._ahead if self._anchor is None else (self._anchor, *self._ahead)
        return [anchor.digest for anchor in known if anchor.number == number]

    def skip(self, number: int) -> Iterator[TipFault]:
        """Yield the tips below a number, whose records are missing.

        A tip that covers nothing, at the very record behind which to begin, only says something of the stream, as that
        it is closed: its record belongs to what is before.
        """
        while self._anchor is not None and self._anchor.number < number:
            if self._anchor.number != self._begin or self._anchor.first <= self._begin:
                yield _missing(self._anchor)
            self._advance(self._anchor)

    def meet(self, number: int, row: bytes) -> Iterator[TipFault]:
        """Yield what is wrong with the tips that name this record."""
        while self._anchor is not None and self._anchor.number == number:
            yield from ((fault, number, row) for fault in self._faults(self._anchor, row))
            self._advance(self._anchor)

    def rest(self) -> Iterator[TipFault]:
        """Yield the tips behind the last record."""
        return self.skip(_NEVER)

    def _next(self) -> Anchor | None:
        return self._ahead.popleft() if self._ahead else next(self._anchors, None)

    def _faults(self, anchor: Anchor, row: bytes) -> Iterator[Fault]:
        if row[DIGEST] != anchor.digest:
            named = anchor.digest.hex()
            yield Fault("tip_hash", f"checkpoint {anchor.checkpoint} names the hash {named} for record {anchor.number}")
        follows_on = self._covered_until + 1
        is_again = anchor.first < follows_on
        # Leaves are compared only over records that are all there: one that is missing is a finding of its own.
        is_whole = not is_again and self._count == max(0, anchor.number + 1 - anchor.first)
        if is_whole and self._leaves() != anchor.leaves:
            covered = f"records {anchor.first} to {anchor.number}"
            yield Fault("leaves", f"{covered} are not those that checkpoint {anchor.checkpoint} covers")
        elif is_again or (anchor.first > follows_on and anchor.checkpoint <= self._complete_until):
            yield Fault(
                "leaves",
                f"checkpoint {anchor.checkpoint} covers the stream from {anchor.first}, not from {follows_on}",
            )

    def _leaves(self) -> bytes:
        self._hash.update(self._unhashed)
        self._unhashed.clear()
        return self._hash.digest()

    def _advance(self, met: Anchor) -> None:
        if met.closed and self.end is None:
            self.end = met.number
        self._covered_until = max(self._covered_until, met.number)
        self._anchor = self._next()
        self._first = _NEVER if self._anchor is None else self._anchor.first
        self.number = _NEVER if self._anchor is None else self._anchor.number
        self._hash, self._count = hashlib.sha256(), 0
        self._unhashed.clear()


def _missing(anchor: Anchor) -> TipFault:
    detail = f"checkpoint {anchor.checkpoint} names record {anchor.number}, which is missing"
    return Fault("tip_missing", detail), anchor.number, None
