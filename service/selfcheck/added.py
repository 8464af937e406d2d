"""Reads what was added to the ledger behind the checkpoint up to which it counts as verified."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from service.ports import CheckpointRow, Reads, StoredRecord, StreamRow
from telemetry import names
from telemetry.audit.body_view import view_body
from telemetry.audit.checkpoint import Checkpoint, parse
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row

ROWS_AT_ONCE: Final = 500
STREAMS_AT_ONCE: Final = 1000


class Mark(msgspec.Struct, frozen=True):
    """Up to where the ledger counts as verified: the number of a checkpoint, and how far it covers each stream."""

    number: int
    covered: Mapping[str, int]


class Added:
    """What is committed behind a mark, up to the last checkpoint and beyond, as it is when this is made.

    `mark` is the last checkpoint where none is given; None while there is no checkpoint, or when another one was
    written meanwhile. `next_mark` is where the next one begins, once all of `found` was read.

    Raises (each method):
        LedgerUnavailableError: the database cannot be read.
    """

    def __init__(self, reads: Reads, mark: Mark | None, is_given_up: Callable[[], bool]) -> None:
        self._reads = reads
        self._is_given_up = is_given_up
        self._tips: dict[str, int] = {}
        self._last = _last_checkpoint(reads)
        self._streams: Sequence[StreamRow] = ()
        self.mark: Mark | None = None
        if self._last is None:
            return
        # In this order: whatever the last checkpoint names is committed, so the streams as listed now reach as far.
        self._streams = list(_streams(reads))
        # A ledger that was set back is no window's business: what was there of it counts anew.
        is_usable = mark is not None and mark.number <= self._last.number
        self.mark = mark if is_usable else self._begin(self._last)
        if self.mark is not None:
            self._tips.update(self.mark.covered)

    @property
    def next_mark(self) -> Mark | None:
        """The last checkpoint, with how far the checkpoints up to it cover."""
        return None if self._last is None else Mark(self._last.number, self._tips)

    def found(self) -> Iterator[Found]:
        """Yield the records behind the mark; ends early when it is given up."""
        if self._last is None or self.mark is None:
            return
        for row in self._streams:
            for one in self._stored(row.stream_id, self.mark.covered.get(row.stream_id, 0) + 1, row.number):
                stated = _checkpoint(one.record.body)
                if stated is not None and stated.number > self._last.number:
                    # Written after the streams were listed: what it names may be behind their ends.
                    break
                for tip in stated.tips if stated is not None else ():
                    self._tips[tip.stream_id] = max(tip.number, self._tips.get(tip.stream_id, 0))
                place = SourcePlace(row.stream_id, one.record.sequence_number)
                yield from found_in_row(one.record.body, one.log_record, one.resource, place)

    def _begin(self, last: CheckpointRow) -> Mark | None:
        now_last = _last_checkpoint(self._reads)
        if now_last is None or now_last.number != last.number:
            return None
        return Mark(last.number, {row.stream_id: row.anchored for row in self._streams if row.anchored is not None})

    def _stored(self, stream_id: str, first: int, last: int) -> Iterator[StoredRecord]:
        while first <= last and not self._is_given_up():
            stored = self._reads.stored_of_stream(stream_id, first, last, ROWS_AT_ONCE)
            if not stored:
                return
            yield from stored
            first = stored[-1].record.sequence_number + 1


def last_number(reads: Reads) -> int:
    """Return the number of the last checkpoint; 0 while there is none."""
    last = _last_checkpoint(reads)
    return 0 if last is None else last.number


def _last_checkpoint(reads: Reads) -> CheckpointRow | None:
    rows = reads.checkpoints(None, 1).rows
    return rows[0] if rows else None


def _streams(reads: Reads) -> Iterator[StreamRow]:
    cursor: str | None = None
    while True:
        page = reads.streams(cursor, STREAMS_AT_ONCE)
        yield from page.rows
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


def _checkpoint(body: str) -> Checkpoint | None:
    try:
        decoded = view_body(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        # Whatever it is, the verification says so.
        return None
    return parse(decoded.attributes) if decoded.event_name == names.EVENT_AUDIT_CHECKPOINT else None
