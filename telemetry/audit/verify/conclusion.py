"""Draws the conclusion from what was taken in of a copy: the steps that look at records together, and the report."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.verify.checkpoints import Judge, Seen
from telemetry.audit.verify.findings import Fault, Findings, Noted, is_broken
from telemetry.audit.verify.ids import Ids
from telemetry.audit.verify.in_scope import InScope
from telemetry.audit.verify.named import NamedCheckpoint, Window
from telemetry.audit.verify.onlooker import Onlooker, name_of
from telemetry.audit.verify.report import Report
from telemetry.audit.verify.rotation import Keyring
from telemetry.audit.verify.rows import (
    ID_ROW_BYTES,
    KEY_BYTES,
    ROW_BYTES,
    STREAM,
    key_of,
    noted_at,
    unpack,
    unpack_id_row,
    uuid_of,
)
from telemetry.audit.verify.scope import Expected, Receipt, Scope
from telemetry.audit.verify.sources import Reading
from telemetry.audit.verify.spill import Groups, Run, Sorter, rows_of
from telemetry.audit.verify.standing import ANCHOR_BYTES, Anchor, Relied, Standing, unpack_anchor
from telemetry.audit.verify.streams import Outcome, Situation, StreamWalk


def conclude(
    reading: Reading, keys: Sequence[Ed25519PublicKey], scope: Scope, expected: Expected, folder: Path
) -> Report:
    """Return the report on a copy, after everything of it was taken in.

    Raises:
        OSError: there is no room in `folder` for what memory does not hold.
    """
    return _Conclusion(reading, keys, scope, expected, folder).report()


class _Conclusion:
    def __init__(
        self, reading: Reading, keys: Sequence[Ed25519PublicKey], scope: Scope, expected: Expected, folder: Path
    ) -> None:
        self._reading = reading
        self._gathered = reading.gathered
        self._scope = scope
        self._expected = expected
        self._folder = folder
        self._findings = Findings()
        self._keys = Keyring(keys, chain.from_iterable(one.rotations for one in self._gathered))
        self._anchors = Sorter(folder / "anchors", ANCHOR_BYTES)
        self._standing = Standing(self._anchors, scope)
        self._in_scope = InScope(scope, self._standing)
        self._onlooker = Onlooker(expected.receipts)
        self._known: Seen | None = None
        self._losers: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._wanted = {key_of(stream_id)[0] for stream_id in scope.streams}
        self._texts = {key_of(stream_id)[0]: stream_id for stream_id in scope.streams}
        self._receipts: defaultdict[bytes, defaultdict[int, list[Receipt]]] = defaultdict(lambda: defaultdict(list))
        for receipt in expected.receipts:
            self._receipts[key_of(receipt.stream_id)[0]][receipt.number].append(receipt)
            self._texts[key_of(receipt.stream_id)[0]] = receipt.stream_id
        for one in self._gathered:
            self._texts |= one.odd_streams

    def report(self) -> Report:
        # 7. and 8. Checkpoint signatures, numbers and links.
        judge = Judge(self._keys)
        self._standing.take(self._watched(judge.kept(self._rows(one.checkpoints for one in self._gathered))))
        self._texts |= self._standing.odd_streams
        self._add_checkpoint_faults(judge)
        self._check_end()
        # 4. to 6., 9. and 10., stream by stream.
        streams, unanchored, lost = self._check_streams()
        # 4. Same record id twice: identical bodies are one record, different ones are tampering.
        records = self._check_ids()
        self._add_early_findings()
        findings = self._findings.in_order(self._reading.place, self._record_ids(self._findings.record_keys()))
        last = self._standing.last
        is_checkable = records > 0 and (last is not None or not self._keys)
        return Report(
            verdict="broken" if is_broken(findings) else "intact" if is_checkable else "not_checked",
            signatures="checked" if self._keys else "not_checked",
            findings=findings,
            records=records,
            streams=streams,
            checkpoints=judge.distinct,
            unanchored=max(0, unanchored),
            lost=lost,
            last_checkpoint=_named(last),
            window=self._window(),
            first_checkpoint=self._onlooker.first_checkpoint,
            covers=self._onlooker.covers(),
            keys=judge.uses.keys(),
            other_keys=judge.uses.others() if self._keys else (),
            receipts=self._onlooker.receipts(self._reading.place, self._losers),
            beginning=self._onlooker.beginning(self._text_of) if not self._scope.is_window else None,
        )

    def _watched(self, kept: Iterator[Seen]) -> Iterator[Seen]:
        at_least = self._expected.at_least
        for seen in kept:
            if at_least is not None and seen.number == at_least.number:
                self._known = seen
            self._onlooker.see_checkpoint(seen)
            yield seen

    def _add_checkpoint_faults(self, judge: Judge) -> None:
        start = self._standing.start
        last = self._standing.last
        # Without a checkpoint to rely on a window has no start, and yet begins somewhere.
        begins_anywhere = self._scope.is_window and last is None
        for number, noted, is_before in judge.faults:
            if number > start.number if start is not None else not (is_before and begins_anywhere):
                self._findings.add(noted)
        if last is not None:
            for fault in self._standing.total_faults():
                self._findings.add(last.seen.noted(fault))

    def _check_end(self) -> None:
        """Compare the end of the copy with what is known from elsewhere."""
        at_least, not_before, last = self._expected.at_least, self._expected.not_before_ns, self._standing.last
        if at_least is not None and (last is None or last.number < at_least.number):
            self._add_at_end(Fault("checkpoint_stale", f"the copy ends before checkpoint {at_least.number}"))
        elif at_least is not None and self._known is not None and self._known.hash != at_least.hash:
            detail = f"checkpoint {at_least.number} is known to have the hash {at_least.hash}"
            self._findings.add(self._known.noted(Fault("checkpoint_number_reused", detail)))
        if not_before is not None and (last is None or last.observed_ns is None or last.observed_ns < not_before):
            self._add_at_end(Fault("checkpoint_stale", "the last checkpoint is older than was asked for"))

    def _add_at_end(self, fault: Fault) -> None:
        last = self._standing.last
        self._findings.add(Noted(fault) if last is None else last.seen.noted(fault))

    def _check_streams(self) -> tuple[int, int, int]:
        """Check each stream; return how many there are, the balance behind their last tips, and how much was lost."""
        rows = Groups(self._rows((one.rows for one in self._gathered), ROW_BYTES), itemgetter(STREAM))
        anchors = Groups(
            map(unpack_anchor, rows_of(self._anchors.runs(), self._folder / "merged", ANCHOR_BYTES)),
            lambda anchor: anchor.stream,
        )
        streams, unanchored, lost = 0, 0, 0
        pending = set(self._receipts)
        while keys := {key for key in (rows.key, anchors.key, min(pending, default=None)) if key is not None}:
            stream = min(keys)
            pending.discard(stream)
            with rows.of(stream) as of_stream, anchors.of(stream) as named:
                if not self._wanted or stream in self._wanted:
                    outcome = self._check_stream(stream, self._onlooker.pass_on(stream, of_stream), named)
                    streams, unanchored = streams + bool(outcome.numbers), unanchored + outcome.unanchored
                    lost += outcome.lost
        return streams, unanchored, lost

    def _check_stream(self, stream: bytes, rows: Iterable[bytes], anchors: Iterator[Anchor]) -> Outcome:
        standing = self._standing
        closed: int | None = None
        first: Anchor | None = None
        for first in anchors:
            if standing.start is None or first.checkpoint > standing.start.number:
                break
            closed = first.number if first.closed and closed is None else closed
            first = None
        situation = Situation(
            stream_id=self._text_of(stream),
            begin=self._in_scope.begin_of(stream, first),
            begin_by=self._in_scope.begin_by(stream),
            since_ns=self._scope.since_ns or 0,
            anchored=standing.anchored.get(stream, 0),
            closed=closed,
            complete_until=standing.complete_until,
            sealed_by_ns=standing.sealed_by_ns,
            all_anchored=self._expected.all_anchored,
            lost_times=[one for one in standing.lost_times if one.stream != stream],
            start=0 if standing.start is None else standing.start.number,
            receipts=self._receipts.get(stream, {}),
        )
        named = anchors if first is None else chain([first], anchors)
        losers: set[bytes] = set()
        outcome = StreamWalk(situation, named, self._findings.add, losers).run(rows)
        if losers:
            self._losers[stream] = losers
        self._in_scope.keep(stream, outcome.begin)
        return outcome

    def _check_ids(self) -> int:
        """Check that no two records share an id, and return how many ids there are."""
        ids = Ids(self._losers, self._standing.anchored)
        rows = self._rows((one.ids for one in self._gathered), ID_ROW_BYTES)
        if not self._scope.is_everything:
            rows = (row for row in rows if self._in_scope.holds(*_place_of(row)))
        for fault, row in ids.run(rows):
            self._findings.add(noted_at(fault, self._text_of(row.stream), row))
        return ids.count

    def _add_early_findings(self) -> None:
        """Add what was found on records by themselves, as far as they are in the scope."""
        early = [noted for one in self._gathered for noted in one.findings]
        early.extend(noted_at(fault, seen.stream_id, unpack(seen.row)) for fault, seen in self._keys.faults())
        for noted in early:
            if (
                noted.stream_id is None
                or noted.number is None
                or self._in_scope.holds(key_of(noted.stream_id)[0], noted.number)
            ):
                self._findings.add(noted)

    def _record_ids(self, keys: set[bytes]) -> Mapping[bytes, str]:
        """Return the record ids that their keys do not tell."""
        if not keys:
            return {}
        rows = self._rows(one.odd_ids for one in self._gathered)
        return {row[:KEY_BYTES]: row[KEY_BYTES:].decode() for row in rows if row[:KEY_BYTES] in keys}

    def _text_of(self, stream: bytes) -> str:
        return self._texts.get(stream) or uuid_of(stream)

    def _window(self) -> Window | None:
        if self._scope.is_everything:
            return None
        since = None if self._scope.since_ns is None else rfc3339_nanos(self._scope.since_ns)
        return Window(since, _named(self._standing.start), tuple(sorted(self._scope.streams)), self._scope.behind)

    def _rows(self, runs: Iterable[Sequence[Run]], row_bytes: int | None = None) -> Iterator[bytes]:
        return rows_of(list(chain.from_iterable(runs)), self._folder / "merged", row_bytes)


def _place_of(row: bytes) -> tuple[bytes, int]:
    unpacked = unpack_id_row(row)
    return unpacked.stream, unpacked.number


def _named(relied: Relied | None) -> NamedCheckpoint | None:
    return None if relied is None else name_of(relied.seen)
