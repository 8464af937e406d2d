"""What the checkpoints that can be relied on say of the ledger: which tips they name, and where a window begins.

A window (`Scope.since_ns`) begins behind a checkpoint that is taken as it is: the last one before that time, or else
the first one in the copy.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from telemetry.audit.verify.checkpoints import Seen
from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.rows import UNOBSERVED, key_of, unpack
from telemetry.audit.verify.spill import Sorter

_FORM: Final = struct.Struct(">16sQQQ32s32s?")

ANCHOR_BYTES: Final = _FORM.size
MAX_TIPS: Final = 200
"""A checkpoint of so many tips may be one of several that were written at once."""


class Anchor(NamedTuple):
    """One tip of a stream, and the number of the checkpoint that names it; they sort by stream and number."""

    stream: bytes
    number: int
    checkpoint: int
    first: int
    digest: bytes
    leaves: bytes
    closed: bool


class LostTime(NamedTuple):
    """What a restore left out: what was sealed behind a checkpoint and before the one that follows on it.

    `stream` is that of the second, which no checkpoint covers yet.
    """

    since_ns: int
    until_ns: int
    stream: bytes


class Relied(msgspec.Struct, frozen=True):
    """A checkpoint that can be relied on."""

    seen: Seen
    stream: bytes
    place: int
    """The number in the stream."""
    observed_ns: int | None

    @property
    def number(self) -> int:
        """The number of the checkpoint."""
        return self.seen.number


def unpack_anchor(packed: bytes) -> Anchor:
    """Return the fields of a packed anchor."""
    return Anchor(*_FORM.unpack(packed))


class Standing:
    """Takes the checkpoints from the last one down, and hands their tips on to `anchors`."""

    def __init__(self, anchors: Sorter, since_ns: int | None) -> None:
        self._anchors = anchors
        self._since_ns = since_ns
        self._grown = 0
        self._opened = 0
        self._after_start = (0, 0)
        self._run_top = 0
        self._latest: dict[bytes, int] = {}
        self._lowest: Relied | None = None
        self._restore: LostTime | None = None
        self.lost_times: list[LostTime] = []
        """The times of which a restore left records out."""
        self.last: Relied | None = None
        """The last checkpoint that can be relied on."""
        self.start: Relied | None = None
        """The checkpoint that is taken as it is; None when everything is verified."""
        self.sealed_by_ns: int | None = None
        """When the last checkpoint was made that covers all records from before it."""
        self.complete_until = 0
        """Up to this number all checkpoints are there, from the start on."""
        self.anchored: dict[bytes, int] = {}
        """The last number of each stream that a checkpoint covers."""
        self.before: dict[bytes, int] = {}
        """The last number of each stream that belongs to what is before the start."""
        self.odd_streams: dict[bytes, str] = {}

    def take(self, kept: Iterator[Seen]) -> None:
        """Take the checkpoints, from the last number down."""
        for seen in kept:
            if self.last is not None or seen.is_trusted:
                self._count_latest(seen)
            if not seen.is_trusted:
                self._run_top = 0
                continue
            relied = _relied(seen)
            self._rely(relied)
            self._look_for_start(relied)
        self._settle_start()

    def total_faults(self) -> Iterable[Fault]:
        """Yield where the last checkpoint's totals are not those of the tips that are named from the start on."""
        if self.last is None:
            return
        stated = self.last.seen.stated
        if self.start is None:
            counted = (len(self._latest), sum(self._latest.values()))
        elif self.complete_until < stated.number:
            # A checkpoint between them is missing, which is a finding of its own.
            return
        else:
            before = self.start.seen.stated
            counted = (before.streams + self._after_start[0], before.records + self._after_start[1])
        for what, states, counts in (
            ("streams", stated.streams, counted[0]),
            ("records", stated.records, counted[1]),
        ):
            if states != counts:
                yield Fault(
                    "checkpoint_total",
                    f"checkpoint {stated.number} states {states} {what}, the tips so far make {counts}",
                )

    def _count_latest(self, seen: Seen) -> None:
        for tip in seen.stated.tips:
            self._latest.setdefault(key_of(tip.stream_id)[0], tip.number)

    def _rely(self, relied: Relied) -> None:
        stated = relied.seen.stated
        if self.last is None:
            self.last = relied
        if self.sealed_by_ns is None and len(stated.tips) < MAX_TIPS:
            self.sealed_by_ns = relied.observed_ns
        if self._lowest is None or self._run_top == 0 or self._lowest.seen.stated.before != relied.number:
            self._run_top = relied.number
        if self._restore is not None and relied.observed_ns is not None:
            self.lost_times.append(self._restore._replace(since_ns=relied.observed_ns))
            self._restore = None
        if stated.prev_number is not None and relied.observed_ns is not None:
            self._restore = LostTime(0, relied.observed_ns, relied.stream)
        self._lowest = relied
        for tip in stated.tips:
            stream, is_odd = key_of(tip.stream_id)
            if is_odd:
                self.odd_streams[stream] = tip.stream_id
            self.anchored[stream] = max(tip.number, self.anchored.get(stream, 0))
            digest, leaves = bytes.fromhex(tip.hash), bytes.fromhex(tip.leaves)
            self._anchors.add(_FORM.pack(stream, tip.number, stated.number, tip.first, digest, leaves, tip.closed))

    def _look_for_start(self, relied: Relied) -> None:
        """Look for the last checkpoint before the window that has none of the window before it."""
        if self._since_ns is None:
            return
        tips = relied.seen.stated.tips
        if relied.observed_ns is None or relied.observed_ns > self._since_ns:
            self.start, self.before = None, {}
        elif self.start is None:
            self.start = relied
            self.complete_until = self._run_top
            self._after_start = (self._opened, self._grown)
        if self.start is not None:
            for tip in tips:
                self.before.setdefault(key_of(tip.stream_id)[0], tip.number)
        self._opened += sum(tip.first == 1 and tip.number > 0 for tip in tips)
        self._grown += sum(tip.number + 1 - tip.first for tip in tips)

    def _settle_start(self) -> None:
        lowest = self._lowest
        if self._restore is not None:
            self.lost_times.append(self._restore)
            self._restore = None
        if self.start is None and lowest is not None:
            self.complete_until = self._run_top
            if lowest.seen.stated.before > 0 and self._since_ns is None:
                self.complete_until = 0
            elif lowest.seen.stated.before > 0:
                tips = lowest.seen.stated.tips
                self.start = lowest
                self.before = {key_of(tip.stream_id)[0]: tip.number for tip in tips}
                opened = sum(tip.first == 1 for tip in tips)
                grown = sum(tip.number + 1 - tip.first for tip in tips)
                self._after_start = (self._opened - opened, self._grown - grown)


def _relied(seen: Seen) -> Relied:
    row = unpack(seen.row)
    return Relied(seen, row.stream, row.number, None if row.is_(UNOBSERVED) else row.observed)
