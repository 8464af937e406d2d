"""The steps of the verification that check the records of a copy together, and the report of all steps."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.verify.findings import Fault, Findings, UnplacedFinding, is_broken
from telemetry.audit.verify.ledger.checkpoints import CheckpointChain, Seen
from telemetry.audit.verify.ledger.coverage import ANCHOR_BYTES, Anchor, Coverage, TrustedCheckpoint, unpack_anchor
from telemetry.audit.verify.ledger.extent import CopyExtent, name_of
from telemetry.audit.verify.ledger.ids import Ids
from telemetry.audit.verify.ledger.in_scope import InScope
from telemetry.audit.verify.ledger.keyring import Keyring
from telemetry.audit.verify.ledger.streams import StreamContext, StreamResult, StreamWalk
from telemetry.audit.verify.named import NamedCheckpoint, Window
from telemetry.audit.verify.record.rows import (
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
from telemetry.audit.verify.report import Report
from telemetry.audit.verify.scope import Expected, KnownReceipt, Scope
from telemetry.audit.verify.sources import CopyReading
from telemetry.audit.verify.spill import Groups, SortedRun, Sorter, rows_of


class Examination:
    """The records of a copy as a whole, after everything of it was taken in; each method is a step of the verifier.

    To be called in the order in which they stand.

    Raises (each method):
        OSError: there is no room in `folder` for what memory does not hold.
    """

    def __init__(
        self, reading: CopyReading, keys: Sequence[Ed25519PublicKey], scope: Scope, expected: Expected, folder: Path
    ) -> None:
        self._reading = reading
        self._gathered = reading.gathered
        self._scope = scope
        self._expected = expected
        self._folder = folder
        self._findings = Findings()
        self._keys = Keyring(keys, chain.from_iterable(one.rotations for one in self._gathered))
        self._anchors = Sorter(folder / "anchors", ANCHOR_BYTES)
        self._coverage = Coverage(self._anchors, scope)
        self._in_scope = InScope(scope, self._coverage)
        self._extent = CopyExtent(expected.receipts)
        self._chain = CheckpointChain(self._keys)
        self._streams = self._unanchored = self._lost = self._records = 0
        self._known: Seen | None = None
        self._losers: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._wanted = {key_of(stream_id)[0] for stream_id in scope.streams}
        self._texts = {key_of(stream_id)[0]: stream_id for stream_id in scope.streams}
        self._receipts: defaultdict[bytes, defaultdict[int, list[KnownReceipt]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for receipt in expected.receipts:
            self._receipts[key_of(receipt.stream_id)[0]][receipt.number].append(receipt)
            self._texts[key_of(receipt.stream_id)[0]] = receipt.stream_id
        for one in self._gathered:
            self._texts |= one.odd_streams

    def check_checkpoints(self) -> None:
        """Find the checkpoints that can be relied on, and note what is wrong with all of them (steps 7 and 8)."""
        checkpoints = self._rows(one.checkpoints for one in self._gathered)
        self._coverage.take(self._watched(self._chain.kept(checkpoints)))
        self._texts |= self._coverage.odd_streams
        self._add_checkpoint_faults(self._chain)

    def check_end(self) -> None:
        """Compare the end of the copy with what is known from elsewhere."""
        at_least, not_before, last = self._expected.at_least, self._expected.not_before_ns, self._coverage.last
        if at_least is not None and (last is None or last.number < at_least.number):
            self._add_at_end(Fault("checkpoint_stale", f"the copy ends before checkpoint {at_least.number}"))
        elif at_least is not None and self._known is not None and self._known.hash != at_least.hash:
            detail = f"checkpoint {at_least.number} is known to have the hash {at_least.hash}"
            self._findings.add(self._known.noted(Fault("checkpoint_number_reused", detail)))
        if not_before is not None and (last is None or last.observed_ns is None or last.observed_ns < not_before):
            self._add_at_end(Fault("checkpoint_stale", "the last checkpoint is older than was asked for"))

    def check_streams(self) -> None:
        """Go through the streams one by one, each once (steps 4 to 6, 9 and 10)."""
        rows = Groups(self._rows((one.rows for one in self._gathered), ROW_BYTES), itemgetter(STREAM))
        anchors = Groups(
            map(unpack_anchor, rows_of(self._anchors.runs(), self._folder / "merged", ANCHOR_BYTES)),
            lambda anchor: anchor.stream,
        )
        pending = set(self._receipts)
        while keys := {key for key in (rows.key, anchors.key, min(pending, default=None)) if key is not None}:
            stream = min(keys)
            pending.discard(stream)
            with rows.of(stream) as of_stream, anchors.of(stream) as named:
                if not self._wanted or stream in self._wanted:
                    result = self._check_stream(stream, self._extent.pass_on(stream, of_stream), named)
                    self._streams += bool(result.numbers)
                    self._unanchored += result.unanchored
                    self._lost += result.lost

    def check_ids(self) -> None:
        """Check that no two records share an id, and count the ids there are (step 4, over all streams)."""
        ids = Ids(self._losers, self._coverage.anchored)
        rows = self._rows((one.ids for one in self._gathered), ID_ROW_BYTES)
        if not self._scope.is_everything:
            rows = (row for row in rows if self._in_scope.holds(*_place_of(row)))
        for fault, row in ids.run(rows):
            self._findings.add(noted_at(fault, self._text_of(row.stream), row))
        self._records = ids.count

    def report(self) -> Report:
        """Return the report, with what was found on single records as far as they are in the scope."""
        self._add_early_findings()
        findings = self._findings.in_order(self._reading.place, self._record_ids(self._findings.record_keys()))
        last, uses = self._coverage.last, self._chain.uses
        is_checkable = self._records > 0 and (last is not None or not self._keys)
        return Report(
            verdict="broken" if is_broken(findings) else "intact" if is_checkable else "not_checked",
            signatures="checked" if self._keys else "not_checked",
            findings=findings,
            records=self._records,
            streams=self._streams,
            checkpoints=self._chain.distinct,
            unanchored=max(0, self._unanchored),
            lost=self._lost,
            last_checkpoint=_named(last),
            window=self._window(),
            first_checkpoint=self._extent.first_checkpoint,
            covers=self._extent.covers(),
            keys=uses.keys(),
            other_keys=uses.others() if self._keys else (),
            receipts=self._extent.receipts(self._reading.place, self._losers),
            beginning=self._extent.beginning(self._text_of) if not self._scope.is_window else None,
        )

    def _watched(self, kept: Iterator[Seen]) -> Iterator[Seen]:
        at_least = self._expected.at_least
        for seen in kept:
            if at_least is not None and seen.number == at_least.number:
                self._known = seen
            self._extent.see_checkpoint(seen)
            yield seen

    def _add_checkpoint_faults(self, chain: CheckpointChain) -> None:
        start = self._coverage.start
        last = self._coverage.last
        # Without a checkpoint to rely on a window has no start, and yet begins somewhere.
        begins_anywhere = self._scope.is_window and last is None
        for number, noted, is_before in chain.faults:
            if number > start.number if start is not None else not (is_before and begins_anywhere):
                self._findings.add(noted)
        if last is not None:
            for fault in self._coverage.total_faults():
                self._findings.add(last.seen.noted(fault))

    def _add_at_end(self, fault: Fault) -> None:
        last = self._coverage.last
        self._findings.add(UnplacedFinding(fault) if last is None else last.seen.noted(fault))

    def _check_stream(self, stream: bytes, rows: Iterable[bytes], anchors: Iterator[Anchor]) -> StreamResult:
        coverage = self._coverage
        closed: int | None = None
        first: Anchor | None = None
        for first in anchors:
            if coverage.start is None or first.checkpoint > coverage.start.number:
                break
            closed = first.number if first.closed and closed is None else closed
            first = None
        situation = StreamContext(
            stream_id=self._text_of(stream),
            begin=self._in_scope.begin_of(stream, first),
            begin_by=self._in_scope.begin_by(stream),
            since_ns=self._scope.since_ns or 0,
            anchored=coverage.anchored.get(stream, 0),
            closed=closed,
            complete_until=coverage.complete_until,
            sealed_by_ns=coverage.sealed_by_ns,
            all_anchored=self._expected.all_anchored,
            lost_times=[one for one in coverage.lost_times if one.stream != stream],
            start=0 if coverage.start is None else coverage.start.number,
            receipts=self._receipts.get(stream, {}),
        )
        named = anchors if first is None else chain([first], anchors)
        losers: set[bytes] = set()
        result = StreamWalk(situation, named, self._findings.add, losers).run(rows)
        if losers:
            self._losers[stream] = losers
        self._in_scope.keep(stream, result.begin)
        return result

    def _add_early_findings(self) -> None:
        """Add what was found on single records, as far as they are in the scope."""
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
        """Return the record ids that cannot be computed from their keys."""
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
        return Window(since, _named(self._coverage.start), tuple(sorted(self._scope.streams)), self._scope.behind)

    def _rows(self, runs: Iterable[Sequence[SortedRun]], row_bytes: int | None = None) -> Iterator[bytes]:
        return rows_of(list(chain.from_iterable(runs)), self._folder / "merged", row_bytes)


def _place_of(row: bytes) -> tuple[bytes, int]:
    unpacked = unpack_id_row(row)
    return unpacked.stream, unpacked.number


def _named(relied: TrustedCheckpoint | None) -> NamedCheckpoint | None:
    return None if relied is None else name_of(relied.seen)
