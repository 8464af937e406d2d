"""An intact ledger gives no finding, whatever window of it is verified; what was done within a window is found by it.

The small verifier looks at every copy too, and has to say the same.
"""

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.audit.verify import Found, Report, Scope, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from tests.property.intact_ledgers import Intact, intact_ledgers
from tests.property.test_tampering import ACTS, QUICK, Act, points
from tests.support import small_verifier
from tests.support.ledger_maker import Ledger, Sealed, stream_id, tips_of

HOUR_NS = 3600 * 10**9


class Copy:
    """A copy that is looked at through many windows; its lines are read once."""

    def __init__(
        self,
        records: Sequence[Sealed],
        made: Intact,
        *,
        bodies_only: bool = False,
        lines: Sequence[str] | None = None,
    ) -> None:
        self.records = records
        self.keys = [key.public_key() for key in made.keys]
        lines = [record.line() for record in records] if lines is None else lines
        self.archive = "\n".join(lines)
        if bodies_only:
            self.found = [Found(one.text, None, SourcePlace("a", at)) for at, one in enumerate(records, 1)]
        else:
            self.found = [
                one
                for at, line in enumerate(lines, 1)
                for one in records_of_line(line.encode() + b"\n", SourcePlace("a", at))
            ]

    def verify(self, scope: Scope) -> Report:
        """Verify a window."""
        return verify(self.found, public_keys=self.keys, scope=scope)

    def verify_twice(self, scope: Scope) -> Report:
        """Verify a window with both verifiers."""
        report = self.verify(scope)
        assert points(report) == small_verifier.check(
            self.archive, *self.keys, since=scope.since_ns, behind=scope.behind
        )
        return report


def observed(record: Sealed) -> int:
    """Return when a record was sealed."""
    return int(record.log_record()["observedTimeUnixNano"])


def number_of(checkpoint: Sealed) -> int:
    """Return the number of a checkpoint."""
    return int(checkpoint.attributes["auditrace.checkpoint.number"])


def windows(made: Intact) -> Iterator[Scope]:
    """Yield every window: since each time at which something was sealed and around it, and behind each checkpoint."""
    times = [observed(one) for one in made.delivered()]
    around = {0, times[-1] + HOUR_NS, *times}
    around |= {observed(one) + by for one in made.ledger.checkpoints() for by in (-1, 1)}
    yield from (Scope(since_ns=time) for time in sorted(around))
    numbers = [number_of(one) for one in made.ledger.checkpoints()]
    yield from (Scope(behind=number) for number in {0, 1, *numbers, *(number + 1 for number in numbers)})


def start_of(report: Report, records: Sequence[Sealed]) -> int:
    """Return where the start of a window is among records, 0 without one."""
    start = report.window.start if report.window else None
    return next((at for at, one in enumerate(records) if start is not None and one.hash == start.hash), 0)


def assert_intact(report: Report, made: Intact, scope: Scope) -> None:
    """Assert that there is no finding."""
    assert report.findings == (), (scope, made.happened, report.findings)


@QUICK
@given(intact_ledgers(with_restores=False))
def test_no_window_of_an_intact_ledger_gives_a_finding(made: Intact) -> None:
    """However its streams ended and its keys changed: of the whole ledger, and of a copy that begins at the start."""
    whole = Copy(made.ledger.records, made)
    for scope in (Scope(), *windows(made)):
        report = whole.verify_twice(scope)
        assert_intact(report, made, scope)
        at = start_of(report, whole.records)
        if at:
            part = Copy(whole.records[at:], made)
            again = part.verify_twice(scope)
            assert_intact(again, made, scope)
            assert again.window == report.window
            assert again.last_checkpoint == report.last_checkpoint


@QUICK
@given(intact_ledgers())
def test_no_window_of_a_restored_ledger_gives_a_finding(made: Intact) -> None:
    """Neither of what the database holds, nor of everything that was ever delivered, what was lost included."""
    for records in (made.ledger.records, made.delivered()):
        copy = Copy(records, made)
        for scope in (Scope(), *windows(made)):
            report = copy.verify(scope)
            assert_intact(report, made, scope)
            at = start_of(report, records)
            if at:
                assert_intact(Copy(records[at:], made).verify(scope), made, scope)


@QUICK
@given(intact_ledgers(), st.data())
def test_no_window_of_a_copy_that_begins_anywhere_gives_a_finding(made: Intact, data: st.DataObject) -> None:
    """A copy that lost its beginning is intact through every window: it begins with its first checkpoint at the latest.

    A copy of bodies alone is, too. But one that holds the first checkpoint of the ledger is to hold all it covers.
    """
    records = made.delivered() if data.draw(st.booleans()) else made.ledger.records
    whole = next((at for at, one in enumerate(records) if made.ledger.checkpoints()[:1] == [one]), 0)
    first = data.draw(st.sampled_from([0, *range(whole + 1, len(records))]))
    copy = Copy(records[first:], made, bodies_only=data.draw(st.booleans()))
    for scope in windows(made):
        assert_intact(copy.verify(scope), made, scope)


@QUICK
@given(intact_ledgers(with_restores=False), st.data())
def test_no_window_of_single_streams_gives_a_finding(made: Intact, data: st.DataObject) -> None:
    """Streams by themselves are intact through every window."""
    copy = Copy(made.ledger.records, made)
    streams = sorted({one.stream for one in made.ledger.records})
    chosen = frozenset(data.draw(st.lists(st.sampled_from(streams), min_size=1, unique=True)))
    for scope in windows(made):
        part = Scope(since_ns=scope.since_ns, behind=scope.behind, streams=chosen)
        assert_intact(copy.verify(part), made, part)


@settings(QUICK, max_examples=5 * QUICK.max_examples)
@given(intact_ledgers(with_restores=False), st.sampled_from(ACTS), st.booleans(), st.data())
def test_what_was_done_within_a_window_is_found_by_it(
    made: Intact, act: Act, is_part: bool, data: st.DataObject
) -> None:
    """Of every record that was sealed after the start, in a whole copy and in one that begins there.

    As long as one checkpoint is left that covers it.
    """
    ledger = made.ledger
    made.checkpoint(made.alive[0] if made.alive else made.open())
    ledger.append(made.alive[0] if made.alive else made.open())
    made.checkpoint(made.alive[0])
    start = data.draw(st.sampled_from(ledger.checkpoints()[:-1]))
    at = ledger.records.index(start)
    within = Ledger(records=ledger.records[at + 1 :])
    scope = Scope(behind=number_of(start)) if data.draw(st.booleans()) else Scope(since_ns=observed(start))
    entries = [(record, record.line()) for record in within.records]

    touched = act(entries, within, data.draw(st.sampled_from(within.records[:-1])), data)

    before = ledger.records[at if is_part else 0 : at + 1]
    lines = [*(one.line() for one in before), *(line for _, line in entries)]
    report = Copy([], made, lines=lines).verify_twice(scope)
    left = [one for one, _ in entries if one in within.checkpoints() and one not in touched]
    tips = [tip for one in left for tip in tips_of(one)]
    is_new = {one for one, _ in entries} - set(within.records)
    for record in touched:
        covering = [tip for tip in tips if tip["stream_id"] == record.stream and tip["number"] >= record.number]
        assert not (covering or record in is_new) or record.stream in {stream for _, stream, _ in points(report)}


@QUICK
@given(intact_ledgers(with_restores=False), st.data())
def test_a_record_behind_the_end_of_a_stream_is_found_by_every_window(made: Intact, data: st.DataObject) -> None:
    """Whoever closed the stream and whenever: also if nothing but a tip that covers nothing says so."""
    ledger = made.ledger
    made.do("die idle", 0)
    made.checkpoint(made.alive[0])
    closed = {tip["stream_id"] for seen in ledger.checkpoints() for tip in tips_of(seen) if tip["closed"]}
    stream = data.draw(st.sampled_from([at for at in range(101) if stream_id(at) in closed]))
    start = data.draw(st.sampled_from(ledger.checkpoints()))
    forged = ledger.append(stream)

    report = Copy(ledger.records, made).verify_twice(Scope(behind=number_of(start)))

    assert ("after_close", forged.stream, forged.number) in points(report)
