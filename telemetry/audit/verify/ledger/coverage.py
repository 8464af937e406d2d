"""What the checkpoints that can be relied on say of the ledger: which tips they name, and where a window begins.

A window (`Scope.since_ns`, `Scope.behind`) begins behind a checkpoint that is taken as it is: the last one before it,
or else the first one in the copy.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.ledger.checkpoints import Seen
from telemetry.audit.verify.record.rows import UNOBSERVED, key_of, unpack
from telemetry.audit.verify.scope import Scope
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

    `fork` is the number of the second, and `stream` its stream, which no checkpoint covers yet.
    """

    since_ns: int
    until_ns: int
    stream: bytes
    fork: int


class TrustedCheckpoint(msgspec.Struct, frozen=True):
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


class _Start:
    """A checkpoint at which verification may begin; `before` gets the tips of the checkpoints up to it."""

    def __init__(self, relied: TrustedCheckpoint, complete_until: int, opened: int, grown: int) -> None:
        self.relied = relied
        self.is_full = len(relied.seen.stated.tips) >= MAX_TIPS
        self.complete_until = complete_until
        self.opened_since = opened
        self.grown_since = grown
        self.before: dict[bytes, int] = {}

    def add(self, relied: TrustedCheckpoint) -> None:
        """Take the tips of the next checkpoint, from the start on down."""
        for tip in relied.seen.stated.tips:
            self.before.setdefault(key_of(tip.stream_id)[0], tip.number)


def unpack_anchor(packed: bytes) -> Anchor:
    """Return the fields of a packed anchor."""
    return Anchor(*_FORM.unpack(packed))


class Coverage:
    """Takes the checkpoints from the last one to the first, and adds their tips to `anchors`."""

    def __init__(self, anchors: Sorter, scope: Scope) -> None:
        self._anchors = anchors
        self._scope = scope
        self._grown = 0
        self._opened = 0
        self._run_top = 0
        self._latest: dict[bytes, int] = {}
        self._lowest: TrustedCheckpoint | None = None
        self._restore: LostTime | None = None
        self._start: _Start | None = None
        self._first: _Start | None = None
        self.lost_times: list[LostTime] = []
        """The times of which a restore left records out."""
        self.last: TrustedCheckpoint | None = None
        """The last checkpoint that can be relied on."""
        self.sealed_by_ns: int | None = None
        """When the last checkpoint was made that covers all records from before it."""
        self.complete_until = 0
        """Up to this number all checkpoints are there, from the start on."""
        self.has_all_before = False
        """All checkpoints up to the start are there: a stream that they do not name is none that was before it."""
        self.anchored: dict[bytes, int] = {}
        """The last number of each stream that a checkpoint covers."""
        self.odd_streams: dict[bytes, str] = {}

    @property
    def start(self) -> TrustedCheckpoint | None:
        """The checkpoint that is taken as it is; None when everything is verified."""
        return None if self._start is None else self._start.relied

    @property
    def before(self) -> Mapping[bytes, int]:
        """The last number of each stream that the checkpoints up to the start name."""
        return {} if self._start is None else self._start.before

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
            if self._scope.is_window:
                self._look_for_start(relied)
        if self._restore is not None:
            self.lost_times.append(self._restore)
        if self._lowest is not None:
            self._settle_start(self._lowest)

    def total_faults(self) -> Iterable[Fault]:
        """Yield where the last checkpoint's totals are not those of the tips that are named from the start on."""
        if self.last is None:
            return
        stated = self.last.seen.stated
        if self._start is None:
            counted = (len(self._latest), sum(self._latest.values()))
        elif self.complete_until < stated.number:
            # A checkpoint between them is missing, which is a finding of its own.
            return
        else:
            before = self._start.relied.seen.stated
            counted = (before.streams + self._start.opened_since, before.records + self._start.grown_since)
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

    def _rely(self, relied: TrustedCheckpoint) -> None:
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
            self._restore = LostTime(0, relied.observed_ns, relied.stream, relied.number)
        self._lowest = relied
        for tip in stated.tips:
            stream, is_odd = key_of(tip.stream_id)
            if is_odd:
                self.odd_streams[stream] = tip.stream_id
            self.anchored[stream] = max(tip.number, self.anchored.get(stream, 0))
            digest, leaves = bytes.fromhex(tip.hash), bytes.fromhex(tip.leaves)
            self._anchors.add(_FORM.pack(stream, tip.number, stated.number, tip.first, digest, leaves, tip.closed))

    def _look_for_start(self, relied: TrustedCheckpoint) -> None:
        """Look for the last checkpoint before the window that has none of the window before it.

        One of as many tips as it can have may be one of several that were made at once, the next of which cover what
        was sealed before it: only who names it knows that verification can begin there.
        """
        tips = relied.seen.stated.tips
        here = _Start(relied, self._run_top, self._opened, self._grown)
        if self._is_in_window(relied):
            self._start = None
        elif self._start is None and (self._scope.behind is not None or not here.is_full):
            self._start = here
        if self._first is None or self._first.is_full or not here.is_full:
            self._first = here
        for start in filter(None, (self._start, self._first)):
            start.add(relied)
        self._opened += sum(tip.first == 1 for tip in tips)
        self._grown += sum(tip.number + 1 - tip.first for tip in tips)

    def _is_in_window(self, relied: TrustedCheckpoint) -> bool:
        if self._scope.behind is not None:
            return relied.number > self._scope.behind
        return relied.observed_ns is None or relied.observed_ns > (self._scope.since_ns or 0)

    def _settle_start(self, lowest: TrustedCheckpoint) -> None:
        is_from_first = lowest.seen.stated.before == 0
        if self._scope.is_window and self._start is None and not is_from_first:
            # No checkpoint is before the window: what the copy holds begins within it.
            self._start = self._first
        if self._start is None:
            self.complete_until = self._run_top if is_from_first else 0
        else:
            self.complete_until = self._start.complete_until
            self.has_all_before = is_from_first and self._run_top >= self._start.relied.number


def _relied(seen: Seen) -> TrustedCheckpoint:
    row = unpack(seen.row)
    return TrustedCheckpoint(seen, row.stream, row.number, None if row.is_(UNOBSERVED) else row.observed)
