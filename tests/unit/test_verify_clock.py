"""A clock that is set while the ledger is written: only what is not covered yet may be taken for a forgery."""

from collections.abc import Callable

import pytest

from telemetry.audit.verify import Report, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import SourcePlace
from tests.support.ledger_maker import KEY, Ledger

HOUR = 60


def check(made: Ledger, *, up_to: int | None = None) -> Report:
    """Verify a copy as it was after so many records."""
    lines = [f"{record.line()}\n".encode() for record in made.records[:up_to]]
    found = (one for at, line in enumerate(lines, 1) for one in records_of_line(line, SourcePlace("a", at)))
    return verify(found, public_keys=[KEY.public_key()])


def goes_on(made: Ledger, first_stream: int) -> None:
    """Let two lanes and a writer of checkpoints go on for a while, with checkpoints every minute."""
    for _ in range(3):
        for at in range(6):
            made.append(first_stream + at % 2)
        made.checkpoint(first_stream)


def step_forward(made: Ledger) -> int:
    """Set the clock an hour ahead; return the first stream that is written to from then on."""
    made.step_minutes += HOUR
    return 1


def step_back(made: Ledger) -> int:
    """Set the clock an hour back: the lanes close their streams and open others."""
    for stream in (1, 2):
        made.append(stream, "audit.stream.close")
    made.step_minutes -= HOUR
    return 3


@pytest.mark.parametrize("set_clock", [step_forward, step_back])
def test_a_step_of_the_clock_is_over_after_two_checkpoints(set_clock: Callable[[Ledger], int]) -> None:
    """At every moment only records that no checkpoint covers yet may be suspect; two checkpoints later none is."""
    made = Ledger(minutes_between=1 / 7)
    goes_on(made, 1)
    stepped = len(made.records)
    goes_on(made, set_clock(made))

    first = made.records.index(made.checkpoints()[0]) + 1
    settled = made.records.index(made.checkpoints()[-2]) + 1
    for up_to in range(first, len(made.records) + 1):
        report = check(made, up_to=up_to)
        codes = {finding.code for finding in report.findings}
        assert codes <= ({"record_unanchored"} if stepped < up_to < settled else set()), up_to
        assert report.last_checkpoint is not None


def test_what_is_sealed_after_a_step_back_is_suspect_until_a_checkpoint_covers_it() -> None:
    """Between the step and the next checkpoint the records of the new time look like ones that were appended."""
    made = Ledger(minutes_between=1 / 7)
    goes_on(made, 1)
    made.step_minutes -= HOUR
    made.append(3)

    report = check(made)
    assert {finding.code for finding in report.findings} == {"record_unanchored"}
    assert report.summary().endswith("if that can be, verify again then")
    made.checkpoint(3)
    assert check(made).findings == ()


def test_a_step_of_the_clock_excuses_nothing_else() -> None:
    """Beside any other finding nothing is said of the clock."""
    made = Ledger(minutes_between=1 / 7)
    goes_on(made, 1)
    made.step_minutes -= HOUR
    made.append(3)
    made.records.pop(2)

    report = check(made)
    assert {finding.code for finding in report.findings} > {"record_unanchored"}
    assert "clock" not in report.summary()


def test_a_record_that_was_sealed_shortly_before_is_not_suspect() -> None:
    """A record that no checkpoint covers yet may have been sealed up to five minutes before the last one."""
    made = Ledger(minutes_between=1 / 7)
    goes_on(made, 1)
    late = made.append(2)
    made.records.pop()
    made.first_id += 1
    made.step_minutes += 4.8
    made.checkpoint(1)
    made.records.append(late)

    assert check(made).findings == ()


def test_what_was_sealed_before_a_step_ahead_and_committed_after_is_suspect_until_then() -> None:
    """A lane that sealed before the step and committed after the next checkpoint is not covered by that one."""
    made = Ledger(minutes_between=1 / 7)
    goes_on(made, 1)
    late = made.append(2)
    made.records.pop()
    made.first_id += 1
    made.step_minutes += HOUR
    made.checkpoint(1)
    made.records.append(late)

    assert [(finding.code, finding.number) for finding in check(made).findings] == [("record_unanchored", late.number)]
    made.checkpoint(1)
    assert check(made).findings == ()


def test_several_checkpoints_at_once_are_not_one_too_few() -> None:
    """After an outage more streams may be left than one checkpoint names: between two of them nothing is suspect."""
    made = Ledger(minutes_between=0)
    for stream in range(1, 203):
        made.append(stream, "audit.stream.open")
    made.records, behind = made.records[:200], made.records[200:]
    made.first_id, made.step_minutes = 1_000, HOUR
    first = made.checkpoint(1)
    assert len(first.attributes["auditrace.checkpoint.tips"]) == 200
    made.records.extend(behind)

    assert check(made).findings == ()
    assert check(made).unanchored == 1 + len(behind)
    made.checkpoint(1)
    assert check(made).findings == ()
    forgery = behind[-1].copy()
    forgery.attributes["audit.record.id"] = forgery.attributes["log.record.uid"] = "forged"
    forgery.attributes["audit.sequence.stream_id"] = "forged"
    made.records.append(forgery)
    assert [(finding.code, finding.stream_id) for finding in check(made).findings] == [("record_unanchored", "forged")]
