"""Steps 4 to 6, 9 and 10 of the verification, for one stream: its records are gone through once, by number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from telemetry.audit.verify.findings import SEALED_BEFORE, Fault, UnplacedFinding
from telemetry.audit.verify.ledger.coverage import Anchor, LostTime
from telemetry.audit.verify.ledger.tips import TipFault, Tips
from telemetry.audit.verify.record.rows import (
    BEFORE,
    CHECKPOINT,
    CLOSE,
    DIGEST,
    HAS_PREV_HASH,
    HAS_PREV_ID,
    HERE,
    NUMBER,
    UNOBSERVED,
    CopyRow,
    noted_at,
    number_of,
    unpack,
)
from telemetry.audit.verify.scope import KnownReceipt

GRACE_NS: Final = 5 * 60 * 1_000_000_000
"""How long before the last checkpoint a record may have been sealed without being covered by one."""

_FLAGS: Final = 128


class StreamContext(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stream before its records are looked at.

    Args:
        stream_id: its id.
        begin: the number behind which to begin; None is behind whatever was sealed before `since_ns`.
        begin_by: records before this number may be missing at the beginning.
        since_ns: when the window begins.
        anchored: the last number that a checkpoint covers.
        closed: the stream ended with this number, before the window.
        complete_until: up to this checkpoint none is missing.
        sealed_by_ns: when the last checkpoint was made that covers all records from before it.
        all_anchored: only checkpoints may be behind the last tip.
        lost_times: when records were sealed that a restore left out.
        start: the number of the checkpoint at the beginning, 0 for none; what a restore before it left out is not
            looked at.
        receipts: records that are to be there, by number.
    """

    stream_id: str
    begin: int | None
    begin_by: int
    since_ns: int
    anchored: int
    closed: int | None
    complete_until: int
    sealed_by_ns: int | None
    all_anchored: bool
    lost_times: Sequence[LostTime]
    start: int
    receipts: Mapping[int, Sequence[KnownReceipt]]


class StreamResult(NamedTuple):
    """The result of one stream: its count of numbers, the number before them, and how many are uncovered and lost."""

    numbers: int
    begin: int
    unanchored: int
    lost: int


class StreamWalk:
    """Goes through the records of one stream and hands what is wrong to `note`.

    `losers` gets the hashes of records whose number another record holds.
    """

    def __init__(
        self,
        situation: StreamContext,
        anchors: Iterator[Anchor],
        note: Callable[[UnplacedFinding], None],
        losers: set[bytes],
    ) -> None:
        self._situation = situation
        self._note = note
        self._losers = losers
        self._begin = situation.begin
        self._tips = Tips(anchors, situation.begin or 0, situation.complete_until)
        self._end = situation.closed
        self._before: bytes | None = None
        self._expected = 1 if situation.begin is None else situation.begin + 1
        self._undecided: list[list[bytes]] = []
        self._numbers = 0
        self._behind = 0
        self._lost = 0
        self._lost_times = [one for one in situation.lost_times if one.fork > situation.start]
        self._lost_before = [one for one in situation.lost_times if one.fork <= situation.start]
        self._missing = {number: list(receipts) for number, receipts in situation.receipts.items()}

    def run(self, rows: Iterable[bytes]) -> StreamResult:
        """Go through the stream's rows, sorted and with any number of copies of each."""
        last, rivals = b"", list[bytes]()
        for row in rows:
            if row[NUMBER] != last[NUMBER]:
                # Most records are the only one of their number: they are taken when the next one shows it.
                if last:
                    self._settle(last, rivals)
                last, rivals = row, []
            elif row[DIGEST] != (rivals[-1] if rivals else last)[DIGEST]:
                rivals.append(row)
        if last:
            self._settle(last, rivals)
        self._decide(b"")
        self._add(self._tips.rest())
        self._note_receipts()
        begin = (number_of(last) if last else 0) if self._begin is None else self._begin
        return StreamResult(self._numbers, begin, self._balance(), self._lost)

    def _settle(self, row: bytes, rivals: list[bytes]) -> None:
        """Take the record of a number, as soon as it is known which of those that claim it holds it."""
        number = number_of(row)
        if self._begin is None or self._lost_before:
            claims = [one for one in (row, *rivals) if not self._is_before(unpack(one))]
            if not claims:
                return
            row, *rivals = claims
        if self._begin is None:
            self._begin = number - 1
            self._expected = number
        if number <= self._begin:
            return
        if not self._numbers and number <= self._situation.begin_by:
            self._expected = number
        if rivals:
            self._undecided.append([row, *rivals])
            return
        if self._undecided:
            self._decide(row[BEFORE][:32])
        self._take(number, row)

    def _is_before(self, row: CopyRow) -> bool:
        """Tell whether a record lies before the window by its time, where nothing else places it."""
        return (self._begin is None and row.observed < self._situation.since_ns) or self._is_of(row, self._lost_before)

    def _is_of(self, row: CopyRow, times: Iterable[LostTime]) -> bool:
        """Tell whether a restore left a record out at one of these times."""
        return row.number > self._situation.anchored and any(
            time.since_ns < row.observed <= time.until_ns for time in times
        )

    def _decide(self, named: bytes) -> None:
        """4. A number is the record's that a checkpoint names, else that the next record names.

        Without either the least hash holds it: an arbitrary choice that does not depend on the order of reading.
        """
        holders: list[tuple[bytes, list[bytes]]] = []
        for claims in reversed(self._undecided):
            anchored = self._tips.digests(number_of(claims[0]))
            wanted = (*anchored, named)
            holder = min(claims, key=lambda row: (row[DIGEST] not in wanted, row[DIGEST]))
            holders.append((holder, claims))
            named = holder[BEFORE][:32]
        self._undecided = []
        for holder, claims in reversed(holders):
            self._reject(unpack(holder), [unpack(row) for row in claims if row is not holder])
            self._take(number_of(holder), holder)

    def _reject(self, holder: CopyRow, others: Iterable[CopyRow]) -> None:
        for other in others:
            self._losers.add(other.digest)
            self._strike_receipts(other)
            # Different bodies under one record id are conflicting duplicates, told elsewhere.
            if other.record != holder.record:
                detail = f"number {holder.number} is that of the record with the hash {holder.digest.hex()}"
                self._note(noted_at(Fault("number_reused", detail), self._situation.stream_id, other))

    def _take(self, number: int, row: bytes) -> None:
        self._numbers += 1
        if number != self._expected or self._before is None or row[BEFORE] != self._before[HERE]:
            self._check_chain(number, row)
        tips = self._tips
        if number > tips.number:
            self._add(tips.skip(number))
        tips.add(number, row)
        if number == tips.number:
            self._add(tips.meet(number, row))
        if self._end is None:
            self._end = tips.end
        if number > self._situation.anchored or self._end is not None:
            self._check_late(unpack(row))
        if row[_FLAGS] & CLOSE and self._end is None:
            self._end = number
        if number in self._missing:
            self._strike_receipts(unpack(row))
        self._before = row
        self._expected = number + 1

    def _check_chain(self, number: int, row: bytes) -> None:
        here = unpack(row)
        before = None if self._before is None else unpack(self._before)
        # 5. Numbers run from 1 without gaps.
        if number != self._expected:
            last = number - 1
            missing = f"number {last} is" if last == self._expected else f"numbers {self._expected} to {last} are"
            self._note(UnplacedFinding(Fault("gap", f"{missing} missing"), self._situation.stream_id, self._expected))
            before = None
        # 6. The first record names none before it; every other one names the one before it, which is there to compare
        # unless a gap was just reported, or the window begins here.
        if number == 1:
            if here.is_(HAS_PREV_HASH) or here.is_(HAS_PREV_ID):
                self._note_at(Fault("genesis_has_prev", "the first record names a record before it"), here)
        elif not here.is_(HAS_PREV_HASH) or not here.is_(HAS_PREV_ID):
            self._note_at(Fault("link_broken", "the record does not name the one before it"), here)
        elif before is not None:
            wrong = [
                what
                for what, differs in (
                    ("hash", here.prev_digest != before.digest),
                    ("record id", here.prev_record != before.record),
                )
                if differs
            ]
            if wrong:
                what = " and ".join(wrong)
                detail = f"the {what} that it names for record {before.number} is not that record's"
                self._note_at(Fault("link_broken", detail), here)

    def _check_late(self, row: CopyRow) -> None:
        situation = self._situation
        # 10. What a restore left out is neither covered nor forged: it is counted, and nothing more is said of it.
        if self._is_of(row, self._lost_times):
            self._lost += 1
            return
        # A record that the last checkpoint should have covered, had it been there, was added later.
        if row.number > situation.anchored:
            self._behind += 1
            sealed_by = situation.sealed_by_ns
            if sealed_by is not None and not row.is_(UNOBSERVED) and row.observed < sealed_by - GRACE_NS:
                self._note_at(Fault("record_unanchored", SEALED_BEFORE), row)
            elif situation.all_anchored and not row.is_(CHECKPOINT):
                self._note_at(Fault("record_unanchored", "no checkpoint covers it yet"), row)
        # Only checkpoints may follow the end of a stream.
        if self._end is not None and row.number > self._end and not row.is_(CHECKPOINT):
            self._note_at(Fault("after_close", f"the stream ended at {self._end}"), row)

    def _strike_receipts(self, row: CopyRow) -> None:
        found = row.digest.hex()
        receipts = self._missing.get(row.number, [])
        self._missing[row.number] = [receipt for receipt in receipts if receipt.hash != found]

    def _note_receipts(self) -> None:
        for number, receipts in sorted(self._missing.items()):
            for receipt in receipts if self._begin is not None and number > self._begin else ():
                fault = Fault("receipt_missing", f"no record with the hash {receipt.hash} has this number")
                self._note(UnplacedFinding(fault, self._situation.stream_id, number, receipt.record_id))

    def _balance(self) -> int:
        """Return how many records are behind the last tip; below zero, by how many the stream falls short of it."""
        if not self._numbers:
            return 0
        return self._behind or min(0, self._expected - 1 - self._situation.anchored)

    def _add(self, faults: Iterable[TipFault]) -> None:
        for fault, number, row in faults:
            if row is None:
                self._note(UnplacedFinding(fault, self._situation.stream_id, number))
            else:
                self._note_at(fault, unpack(row))

    def _note_at(self, fault: Fault, row: CopyRow) -> None:
        self._note(noted_at(fault, self._situation.stream_id, row))
