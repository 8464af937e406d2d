"""Reads the records that were added to the ledger behind the checkpoint up to which it is verified."""

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


class VerifiedUpTo(msgspec.Struct, frozen=True):
    """How far the ledger is verified: the number of a checkpoint, and the record number it covers in each stream."""

    number: int
    covered: Mapping[str, int]


class AddedRecords:
    """The records behind a mark, up to the last checkpoint and beyond, as they are committed when this is made.

    `mark` is the last checkpoint when none is given; None while there is no checkpoint, or when another one was written
    at the same time. The next reading begins at `next_mark`, after all of `found` was read.

    Raises (each method):
        LedgerUnavailableError: the database cannot be read.
    """

    def __init__(self, reads: Reads, mark: VerifiedUpTo | None, is_given_up: Callable[[], bool]) -> None:
        self._reads = reads
        self._is_given_up = is_given_up
        self._tips: dict[str, int] = {}
        self._last = _last_checkpoint(reads)
        self._streams: Sequence[StreamRow] = ()
        self.mark: VerifiedUpTo | None = None
        if self._last is None:
            return
        # In this order: all that the last checkpoint names is committed, so the streams as listed now reach as far.
        self._streams = list(_streams(reads))
        # After a restore the ledger may end before the mark: then the last checkpoint is the mark.
        is_usable = mark is not None and mark.number <= self._last.number
        self.mark = mark if is_usable else self._begin(self._last)
        if self.mark is not None:
            self._tips.update(self.mark.covered)

    @property
    def next_mark(self) -> VerifiedUpTo | None:
        """The last checkpoint, with the record numbers that it and earlier checkpoints cover."""
        return None if self._last is None else VerifiedUpTo(self._last.number, self._tips)

    def found(self) -> Iterator[Found]:
        """Yield the records behind the mark; ends early when `is_given_up`."""
        if self._last is None or self.mark is None:
            return
        for row in self._streams:
            for one in self._stored(row.stream_id, self.mark.covered.get(row.stream_id, 0) + 1, row.number):
                stated = _checkpoint(one.record.body)
                if stated is not None and stated.number > self._last.number:
                    # It was written after the streams were listed, so it may name records behind their ends.
                    break
                for tip in stated.tips if stated is not None else ():
                    self._tips[tip.stream_id] = max(tip.number, self._tips.get(tip.stream_id, 0))
                place = SourcePlace(row.stream_id, one.record.sequence_number)
                yield from found_in_row(one.record.body, one.log_record, one.resource, place)

    def _begin(self, last: CheckpointRow) -> VerifiedUpTo | None:
        now_last = _last_checkpoint(self._reads)
        if now_last is None or now_last.number != last.number:
            return None
        return VerifiedUpTo(
            last.number, {row.stream_id: row.anchored for row in self._streams if row.anchored is not None}
        )

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
        # The verification reports it.
        return None
    return parse(decoded.attributes) if decoded.event_name == names.EVENT_AUDIT_CHECKPOINT else None
