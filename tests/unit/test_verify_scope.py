"""A part of the ledger, and its end against what is known from elsewhere."""

from collections.abc import Iterable, Iterator
from datetime import datetime

import pytest

from telemetry.audit.checkpoint import sign
from telemetry.audit.verify import Expected, KnownCheckpoint, KnownReceipt, Report, Scope, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import Found, SourcePlace
from tests.support.ledger_maker import KEY, Ledger, Sealed, stream_id, tips_of


def ledger() -> Ledger:
    """Return a ledger of three streams and four checkpoints a minute apart; stream 2 ends before the third."""
    made = Ledger(minutes_between=0.1)
    for _ in range(4):
        for stream in (1, 2, 3) if len(made.checkpoints()) < 2 else (1, 3):
            made.append(stream)
            made.append(stream)
        if len(made.checkpoints()) == 1:
            made.append(2, "audit.stream.close")
        made.checkpoint(1)
    made.append(1)
    return made


def check(records: Iterable[Sealed], scope: Scope | None = None, expected: Expected | None = None) -> Report:
    """Verify records under the test key."""
    found = (one for at, record in enumerate(records, 1) for one in found_in(record, at))
    return verify(found, public_keys=[KEY.public_key()], scope=scope, expected=expected)


def found_in(record: Sealed, line: int) -> Iterator[Found]:
    """Read one record's line."""
    return records_of_line(f"{record.line()}\n".encode(), SourcePlace("a", line))


def sealed_ns(record: Sealed) -> int:
    """Return when a record was sealed."""
    return int(record.log_record()["observedTimeUnixNano"])


def codes(report: Report) -> list[str]:
    """Return the codes found, each with where it is."""
    return [f"{one.code} {(one.stream_id or '-')[-1]}/{one.number or '-'}" for one in report.findings]


def receipt(record: Sealed) -> KnownReceipt:
    """Return what the caller of a record got."""
    return KnownReceipt(record.record_id, record.stream, record.number, record.hash)


@pytest.mark.parametrize("later_ns", [0, 1, 5_000_000_000])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_window_begins_behind_the_checkpoint_before_it(number: int, later_ns: int) -> None:
    """Of a copy that begins anywhere before its start, a window is intact, and names the checkpoint it trusts."""
    made = ledger()
    start = made.checkpoints()[number - 1]
    scope = Scope(since_ns=sealed_ns(start) + later_ns)

    for first in range(made.records.index(start) + 1):
        report = check(made.records[first:], scope)
        assert report.findings == ()
        assert report.verdict == "intact"
        assert report.window is not None
        assert report.window.start is not None
        assert (report.window.start.number, report.window.start.hash) == (number, start.hash)
        assert report.records == len(made.records) - made.records.index(start)


def test_a_window_of_a_copy_that_begins_within_it_begins_with_its_first_checkpoint() -> None:
    """Without a checkpoint from before the window, the first one in the copy is where verification begins."""
    made = ledger()
    first, second, *_ = made.checkpoints()
    copy = made.records[made.records.index(first) + 3 :]

    report = check(copy, Scope(since_ns=sealed_ns(copy[0])))

    assert report.findings == ()
    assert report.window is not None
    assert report.window.start is not None
    assert report.window.start.number == 2
    assert "behind checkpoint 2" in report.summary()
    assert "trusted" in report.summary()
    assert report.records == len(made.records) - made.records.index(second)


def closed_by_another() -> Ledger:
    """Return a ledger whose stream 2 the first checkpoint covers, and the second one closes as it is."""
    made = Ledger(minutes_between=0.1)
    made.append(1)
    made.append(2)
    made.checkpoint(1)
    made.append(1)
    made.checkpoint(1, closed=[2])
    made.append(1)
    made.checkpoint(1)
    return made


@pytest.mark.parametrize("begins_at_start", [False, True])
def test_a_stream_that_another_process_closed_as_it_was_is_no_finding(*, begins_at_start: bool) -> None:
    """Its tip covers nothing and names a record from before the window: with that record in the copy, and without."""
    made = closed_by_another()
    first = made.checkpoints()[0]
    tip = next(one for one in tips_of(made.checkpoints()[1]) if one["stream_id"] == stream_id(2))
    assert (tip["from"], tip["number"], tip["closed"]) == (3, 2, True)
    copy = made.records[made.records.index(first) if begins_at_start else 0 :]

    for scope in (Scope(since_ns=sealed_ns(first)), Scope(behind=1)):
        report = check(copy, scope)
        assert (report.verdict, report.findings) == ("intact", ())
        alone = check(copy, Scope(since_ns=scope.since_ns, behind=scope.behind, streams=frozenset({stream_id(2)})))
        assert alone.findings == ()


def test_that_such_a_tip_closes_its_stream_is_known() -> None:
    """A record behind it is found, although nothing else in the copy says that the stream ended."""
    made = closed_by_another()
    first = made.checkpoints()[0]
    forged = made.append(2)

    report = check(made.records[made.records.index(first) :], Scope(behind=1))
    assert codes(report) == [f"after_close 2/{forged.number}"]


def test_a_tip_that_covers_nothing_elsewhere_is_looked_for() -> None:
    """Within the window its record is to be there, and a tip that covers something is never taken for such a one."""
    made = closed_by_another()
    grown = made.append(3)
    made.checkpoint(1)
    made.checkpoint(1, closed=[3])
    scope = Scope(behind=2)
    assert check(made.records, scope).findings == ()
    without = [record for record in made.records if record.stream != stream_id(3)]
    # Of the checkpoint that covers it, and of the one that closes its stream.
    assert codes(check(without, scope)) == [f"tip_missing 3/{grown.number}"] * 2


def test_a_stream_that_no_checkpoint_up_to_the_start_names_begins_with_its_first_record() -> None:
    """Where all checkpoints are there, what is missing at its beginning is missed, and a forged one from before too."""
    made = closed_by_another()
    opened = made.append(3)
    made.append(3)
    without = [record for record in made.records if record.stream != opened.stream or record.number != 1]
    assert codes(check(without, Scope(behind=3))) == ["gap 3/1"]
    forgery = Ledger(first_id=1000)
    forgery.append(9)
    made.step_minutes = 10
    made.checkpoint(1)
    scope = Scope(since_ns=sealed_ns(made.checkpoints()[2]))
    assert codes(check([*made.records, *forgery.records], scope)) == ["record_unanchored 9/1", "record_unanchored 9/2"]


def test_a_checkpoint_that_may_be_one_of_several_is_not_where_a_window_begins() -> None:
    """Of those that were made at once, the last one alone covers everything from before it."""
    made = Ledger(minutes_between=0.0001)
    for stream in range(205):
        made.append(stream)
    made.checkpoint(1, most=200)
    for stream in range(203):
        made.append(stream)
    made.checkpoint(1, most=200)
    made.append(1)
    made.checkpoint(1)
    first, second, third, fourth, fifth = made.checkpoints()
    assert [len(tips_of(one)) for one in (first, second, third, fourth)] == [200, 5, 200, 3]

    for begin, since, start in (
        (first, first, None),
        (second, second, 2),
        (second, third, 2),
        (third, third, 4),
        (third, fourth, 4),
        (fourth, fourth, 4),
        (third, fifth, 5),
    ):
        for by in (-1, 0, 1):
            copy = made.records[0 if start is None else made.records.index(begin) :]
            report = check(copy, Scope(since_ns=sealed_ns(since) + by))
            assert report.findings == ()
    report = check(made.records, Scope(behind=3))
    assert report.findings == ()
    assert report.window is not None
    assert report.window.start is not None
    assert report.window.start.number == 3


def test_what_a_caller_knows_of_before_decides_where_streams_begin() -> None:
    """A copy of nothing but what was added is verified from the first number that was not covered."""
    made = closed_by_another()
    added = made.records[made.records.index(made.checkpoints()[0]) :]
    covered = {stream_id(1): 2, stream_id(2): 2}
    assert made.records[made.records.index(made.checkpoints()[0])].number == 3
    assert check(added, Scope(behind=1, covered=covered)).findings == ()
    without = [record for record in added if record.stream != stream_id(1) or record.number != 4]
    assert "gap 1/4" in codes(check(without, Scope(behind=1, covered=covered)))
    opened = made.append(3)
    assert codes(check([*added, opened], Scope(behind=1, covered=covered))) == ["gap 3/1"]


def test_a_stream_that_the_start_does_not_name_begins_where_the_next_checkpoint_says() -> None:
    """A stream that did not grow before the start is complete from the first number that is covered after it."""
    made = Ledger(minutes_between=0.1)
    for stream in (1, 2, 2):
        made.append(stream)
    made.checkpoint(1)
    made.append(1)
    start = made.checkpoint(1)
    missing = made.append(2)
    made.append(2)
    made.checkpoint(1)
    copy = made.records[made.records.index(start) - 1 :]
    scope = Scope(since_ns=sealed_ns(copy[0]))

    assert check(copy, scope).findings == ()
    assert codes(check((one for one in copy if one is not missing), scope)) == [f"gap 2/{missing.number}"]


def test_records_that_were_sealed_with_the_start_may_be_missing_before_it() -> None:
    """What one transaction sealed before its checkpoint no tip before names: a copy may begin with the checkpoint."""
    made = Ledger(minutes_between=0.1)
    made.append(1)
    made.append(2)
    stated = made.checkpoint(1).statement()
    del made.records[-1]
    made.first_id += 1
    sealed = made.append(1)
    start = made.append(1, "audit.checkpoint", **stated)
    start.signature = sign(KEY, start.text.encode())
    made.append(1)
    made.checkpoint(1)
    scope = Scope(since_ns=sealed_ns(start))

    assert check(made.records).findings == ()
    assert check(made.records, scope).findings == ()
    assert check(made.records[made.records.index(start) :], scope).findings == ()
    behind = made.records[made.records.index(start) + 1]
    copy = [record for record in made.records if record not in (sealed, behind)]
    assert codes(check(copy, scope)) == [f"gap 1/{behind.number}", f"tip_missing 1/{behind.number}"]


def test_a_window_holds_all_of_its_time_when_the_clock_was_set_back() -> None:
    """A checkpoint from before the window that follows on one of the window is not where it begins."""
    made = Ledger(minutes_between=0.1)
    made.append(1)
    made.append(2)
    start = made.checkpoint(1)
    made.step_minutes = 60
    edited = made.append(2)
    made.append(2)
    made.checkpoint(1)
    made.step_minutes = 0.5
    made.append(3)
    made.checkpoint(3)
    made.append(3)
    made.checkpoint(3)
    edited.attributes["log.record.uid"] = "other"
    scope = Scope(since_ns=sealed_ns(start) + 120_000_000_000)

    report = check(made.records, scope)

    assert report.window is not None
    assert report.window.start is not None
    assert report.window.start.number == 1
    assert report.records == len(made.records) - made.records.index(start)
    assert "uid_differs 2/3" in codes(report)


def test_a_window_from_before_the_ledger_is_all_of_it() -> None:
    """A window that began before the first record needs nothing that is trusted."""
    made = ledger()
    report = check(made.records, Scope(since_ns=0))

    assert report.findings == ()
    assert report.window is not None
    assert report.window.start is None
    assert report.records == len(made.records)
    assert codes(check(made.records[1:], Scope(since_ns=0))) == ["gap 1/1"]


def test_what_is_wrong_behind_the_start_of_a_window_is_found() -> None:
    """A record that is missing or edited behind the start is found at its place, wherever it is."""
    made = ledger()
    start = made.records.index(made.checkpoints()[1])
    scope = Scope(since_ns=sealed_ns(made.records[start]))
    covered = [
        record for record in made.records[start + 1 :] if record not in (made.records[-1], made.checkpoints()[-1])
    ]
    for record in covered:
        report = check((one for one in made.records if one is not record), scope)
        assert {f"gap {record.stream[-1]}/{record.number}", f"tip_missing {record.stream[-1]}/{record.number}"} & set(
            codes(report)
        )
        edited = record.copy()
        edited.attributes["audit.actor.id"] = "eve"
        report = check((edited if one is record else one for one in made.records), scope)
        assert any(one.stream_id == record.stream for one in report.findings)


def test_what_is_wrong_before_the_start_of_a_window_is_not_looked_for() -> None:
    """The limit of a window: what is before its start is trusted, whatever it is, and the report says so."""
    made = ledger()
    scope = Scope(since_ns=sealed_ns(made.checkpoints()[1]))
    made.records[2].attributes["audit.actor.id"] = "eve"
    del made.records[3]
    made.records[4].attributes["log.record.uid"] = "other"

    report = check(made.records, scope)

    assert report.findings == ()
    assert report.window is not None
    assert "trusted" in report.summary()
    assert check(made.records).exit_status == 1


def test_a_record_behind_the_end_of_a_stream_is_found_although_it_ended_before_the_window() -> None:
    """That a stream ended is known from before the window."""
    made = ledger()
    scope = Scope(since_ns=sealed_ns(made.checkpoints()[2]) + 1)
    forged = made.append(2)

    assert f"after_close 2/{forged.number}" in codes(check(made.records, scope))


def test_a_window_without_any_checkpoint_begins_with_its_time() -> None:
    """Without a checkpoint to begin behind, and without a key, the chains since then are compared with themselves."""
    made = Ledger(minutes_between=1)
    for _ in range(5):
        made.append(1)
    scope = Scope(since_ns=sealed_ns(made.records[3]))
    found = [one for record in made.records[2:] for one in found_in(record, 1)]

    report = verify(found, scope=scope)

    assert (report.verdict, report.records) == ("intact", len(made.records) - 3)
    assert report.window is not None
    assert report.window.since is not None
    assert datetime.fromisoformat(report.window.since[:19]) == datetime.fromisoformat(
        made.records[3].body["timestamp"][:19]
    )
    assert f"since {report.window.since}" in report.summary()
    del found[2]
    assert codes(verify(found, scope=scope)) == ["gap 1/5"]


def test_totals_of_a_window_go_on_from_those_at_its_start() -> None:
    """The last checkpoint's totals are compared with those of the one at the start and the tips since."""
    made = ledger()
    made.append(4)
    scope = Scope(since_ns=sealed_ns(made.checkpoints()[1]) + 1)
    last = made.checkpoint(1)
    assert check(made.records, scope).findings == ()
    for total in ("records", "streams"):
        last.attributes[f"auditrace.checkpoint.{total}"] += 1
        found = [one for record in made.records for one in found_in(record, 1)]
        assert codes(verify(found, scope=scope)) == [f"checkpoint_total 1/{last.number}"]
        last.attributes[f"auditrace.checkpoint.{total}"] -= 1


def test_one_stream_is_verified_by_itself() -> None:
    """What is wrong with other streams is not looked for; what is wrong with this one is, and so are checkpoints."""
    made = ledger()
    scope = Scope(streams=frozenset({stream_id(3)}))
    without = [record for record in made.records if record.stream != stream_id(2)]

    report = check(without, scope)

    assert report.findings == ()
    assert (report.streams, report.records) == (1, len(made.of_stream(stream_id(3))))
    assert report.window is not None
    assert report.window.streams == (stream_id(3),)
    (missing,) = [record for record in without if record.stream == stream_id(3) and record.number == 2]
    assert codes(check((one for one in without if one is not missing), scope)) == ["gap 3/2"]
    checkpoint = made.checkpoints()[1]
    assert "checkpoint_gap" in codes(check((one for one in without if one is not checkpoint), scope))[0]


def test_a_stream_that_is_not_there_is_not_intact() -> None:
    """A copy without the stream that was asked for gives no answer, or the tips that are missing."""
    made = ledger()
    assert check(made.records, Scope(streams=frozenset({stream_id(9)}))).verdict == "not_checked"
    without = [record for record in made.records if record.stream != stream_id(3)]
    assert check(without, Scope(streams=frozenset({stream_id(3)}))).exit_status == 1


def test_a_cut_of_whole_checkpoints_shows_against_a_known_one() -> None:
    """A copy that ends before a checkpoint that is known from elsewhere is stale."""
    made = ledger()
    third, fourth = made.checkpoints()[2:]
    cut = made.records[: made.records.index(third) + 1]
    known = Expected(at_least=KnownCheckpoint(4, fourth.hash))

    assert codes(check(cut, expected=known)) == [f"checkpoint_stale 1/{third.number}"]
    assert check(made.records, expected=known).findings == ()
    assert check(made.records, expected=Expected(at_least=KnownCheckpoint(3, third.hash))).findings == ()
    assert codes(check([], expected=known)) == ["checkpoint_stale -/-"]


def test_another_checkpoint_in_the_place_of_a_known_one_is_found() -> None:
    """A copy with another checkpoint of that number is of another ledger, or of another end of it."""
    made = ledger()
    report = check(made.records, expected=Expected(at_least=KnownCheckpoint(3, "0" * 64)))

    assert codes(report) == [f"checkpoint_number_reused 1/{made.checkpoints()[2].number}"]


def test_a_cut_shows_against_the_clock() -> None:
    """A last checkpoint that is older than it may be is stale."""
    made = ledger()
    last = sealed_ns(made.checkpoints()[-1])

    assert check(made.records, expected=Expected(not_before_ns=last)).findings == ()
    assert codes(check(made.records, expected=Expected(not_before_ns=last + 1))) == [
        f"checkpoint_stale 1/{made.checkpoints()[-1].number}"
    ]
    assert codes(check([], expected=Expected(not_before_ns=0))) == ["checkpoint_stale -/-"]


def test_a_record_that_somebody_has_a_receipt_for_is_missed() -> None:
    """Every record cut from the end, or replaced by another, shows against its receipt, anchored or not."""
    made = ledger()
    receipts = [receipt(record) for record in made.records]
    assert check(made.records, expected=Expected(receipts=receipts)).findings == ()

    last = made.records[-1]
    report = check(made.records[:-1], expected=Expected(receipts=receipts))
    assert codes(report) == [f"receipt_missing 1/{last.number}"]
    assert report.findings[0].record_id == last.record_id

    rewritten = last.copy()
    rewritten.attributes["audit.actor.id"] = "eve"
    report = check([*made.records[:-1], rewritten], expected=Expected(receipts=receipts))
    assert codes(report) == [f"receipt_missing 1/{last.number}"]

    elsewhere = KnownReceipt(last.record_id, stream_id(9), 7, last.hash)
    assert codes(check(made.records, expected=Expected(receipts=[elsewhere]))) == ["receipt_missing 9/7"]


def test_a_receipt_from_before_a_window_is_not_missed_in_it() -> None:
    """What is before the start of a window is trusted, records with receipts included."""
    made = ledger()
    start = made.records.index(made.checkpoints()[1])
    expected = Expected(receipts=[receipt(made.records[2]), receipt(made.records[start + 2])])

    assert check(made.records[start:], Scope(since_ns=sealed_ns(made.records[start])), expected).findings == ()


def test_an_unanchored_tail_is_a_finding_only_where_it_was_asked_for() -> None:
    """With everything to be anchored each record behind the last tips is a finding; checkpoints are not."""
    made = ledger()
    asked = Expected(all_anchored=True)

    assert check(made.records).findings == ()
    assert codes(check(made.records, expected=asked)) == [f"record_unanchored 1/{made.records[-1].number}"]
    assert check(made.records[:-1], expected=asked).findings == ()
    made.checkpoint(2)
    assert check(made.records, expected=asked).findings == ()


def test_tips_of_the_ledger_are_what_the_tests_take_them_for() -> None:
    """The ledger of these tests has a stream that ends within it, and others that go on."""
    closed = [tip for checkpoint in ledger().checkpoints() for tip in tips_of(checkpoint) if tip["closed"]]
    assert {tip["stream_id"] for tip in closed} == {stream_id(2)}
