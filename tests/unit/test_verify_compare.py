"""Two copies side by side: what one has and the other lacks is named, and neither is judged."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from telemetry.audit.verify import Comparison, Copy, Found, Scope, SourcePlace, compare
from tests.support.ledger_maker import Ledger, Sealed, stream_id


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger of two streams."""
    made = Ledger(minutes_between=1)
    for stream in (1, 2, 1, 1, 2, 1):
        made.append(stream)
    return made


def found(records: Iterable[Sealed]) -> list[Found]:
    """Return records as bodies from somewhere."""
    return [Found(record.text, None, SourcePlace("a", at)) for at, record in enumerate(records, 1)]


def compared(one: Iterable[Sealed], other: Iterable[Sealed], scope: Scope | None = None) -> Comparison:
    """Compare two copies."""
    return compare(Copy("A", found=found(one)), Copy("B", found=found(other)), scope=scope)


def differences(comparison: Comparison) -> list[tuple[str, str, int, int]]:
    """Return what only one copy has, by the last digit of its stream."""
    return [(one.only_in, one.stream_id[-1], one.first, one.last) for one in comparison.differences]


def test_copies_of_the_same_records_are_the_same(ledger: Ledger) -> None:
    """Neither the order of records nor their number of copies makes a difference."""
    comparison = compared(ledger.records, [*reversed(ledger.records), *ledger.records])

    assert (comparison.verdict, comparison.exit_status, comparison.differences) == ("same", 0, ())
    assert comparison.common == len(ledger.records)


def test_what_a_copy_lacks_is_named_by_ranges(ledger: Ledger) -> None:
    """Numbers that follow on each other are one difference; the copy that has them is named, on either side."""
    one = [record for record in ledger.records if (record.stream, record.number) != (stream_id(2), 2)]
    other = [record for record in ledger.records if record.stream != stream_id(1) or record.number not in {2, 3, 5}]
    comparison = compared(one, other)

    assert comparison.verdict == "different"
    assert comparison.exit_status == 1
    assert differences(comparison) == [("A", "1", 2, 3), ("A", "1", 5, 5), ("B", "2", 2, 2)]
    assert [(copy.name, copy.records) for copy in comparison.copies] == [("A", len(one)), ("B", len(other))]
    assert f"only in A: {stream_id(1)} 2 to 3" in comparison.summary()
    assert f"only in B: {stream_id(2)} 2" in comparison.summary()


def test_a_record_that_copies_have_in_two_versions_is_a_difference_of_both(ledger: Ledger) -> None:
    """The same number with another hash is named on both sides, with the hashes."""
    edited = ledger.records[3].copy()
    edited.attributes["audit.actor.id"] = "eve"
    comparison = compared(ledger.records, [edited if one is ledger.records[3] else one for one in ledger.records])

    here = (ledger.records[3].stream[-1], edited.number, edited.number)
    assert differences(comparison) == [("A", *here), ("B", *here)]
    assert [one.hash for one in comparison.differences] == [ledger.records[3].hash, edited.hash]


def test_a_comparison_may_be_of_a_part(ledger: Ledger) -> None:
    """Only records of the streams and times that were asked for are compared."""
    since = Scope(since_ns=int(ledger.records[5].log_record()["observedTimeUnixNano"]))

    assert compared(ledger.records, ledger.records[5:], since).verdict == "same"
    assert compared(ledger.records, ledger.records[6:], since).verdict == "different"
    only_first = [record for record in ledger.records if record.stream == stream_id(1)]
    assert compared(ledger.records, only_first, Scope(streams=frozenset({stream_id(1)}))).verdict == "same"


@pytest.mark.parametrize("other", [[], [Found("no record", None, SourcePlace("a", 1))]])
def test_without_any_record_nothing_was_compared(ledger: Ledger, other: Sequence[Found]) -> None:
    """Two copies without records are not the same; one without any lacks all that the other has."""
    nothing = compare(Copy("A"), Copy("B", found=other))
    assert (nothing.verdict, nothing.exit_status) == ("not_checked", 2)
    assert nothing.copies[1].unread == len(other)

    comparison = compare(Copy("A", found=found(ledger.records)), Copy("B", found=other))
    assert differences(comparison) == [("A", "1", 1, 5), ("A", "2", 1, 3)]


def test_files_are_compared_with_what_comes_from_elsewhere(ledger: Ledger, tmp_path: Path) -> None:
    """A copy may be files, or any reader's; the answer encodes to JSON."""
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(f"{record.line()}\n" for record in ledger.records[:-1]) + '{"resourceLogs":[')

    comparison = compare(Copy(str(file), [file]), Copy("B", found=found(ledger.records)), workers=1)

    assert differences(comparison) == [("B", "1", 5, 5)]
    assert comparison.copies[0].unread == 1
    assert "1 that could not be read" in comparison.summary()
    assert msgspec.to_builtins(comparison).keys() == {"verdict", "copies", "common", "differences"}
