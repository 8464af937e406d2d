"""Any act of tampering with a ledger is found where it was done, and any combination; an intact copy never is.

Every copy that a test looks at is looked at by the small verifier too, and both have to say the same of it.
"""

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.audit.checkpoint import sign
from telemetry.audit.verify import Expected, Found, KnownCheckpoint, KnownReceipt, Report, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from tests.support import small_verifier
from tests.support.depth import IS_LONG, examples
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed, key_values, stream_id, tips_of
from tests.unit.test_verify_vectors import EXPECTED, VECTORS, public_key

QUICK = settings(derandomize=not IS_LONG, deadline=None, max_examples=examples(25, long=2_000))

Point = tuple[str, str | None, int | None]

FORGED_ID = "019b76da-ffff-7000-8000-000000000000"


@st.composite
def ledgers(draw: st.DrawFn, minutes_between: float = 0.001) -> Ledger:
    """Return a ledger of up to three streams that ends with a checkpoint over all records before; it is in stream 0."""
    ledger = Ledger(minutes_between=minutes_between)
    ledger.append(1)
    for stream in draw(st.lists(st.integers(-1, 2), min_size=2, max_size=12)):
        if stream < 0:
            ledger.checkpoint(0)
        else:
            ledger.append(stream)
    if draw(st.booleans()):
        ledger.append(1, "audit.stream.close")
    ledger.checkpoint(0)
    return ledger


@st.composite
def picked(draw: st.DrawFn, kind: Callable[[Sealed], bool] = lambda _: True) -> tuple[Ledger, Sealed]:
    """Return a ledger and one of its anchored records: any but the last checkpoint."""
    ledger = draw(ledgers().filter(lambda made: any(map(kind, made.records[:-1]))))
    return ledger, draw(st.sampled_from([record for record in ledger.records[:-1] if kind(record)]))


def is_checkpoint(record: Sealed) -> bool:
    """Tell whether a record is a checkpoint."""
    return record.body["event_name"] == "audit.checkpoint"


def lines_of(records: Iterable[Sealed]) -> list[str]:
    """Return an archive of records."""
    return [record.line() for record in records]


def check(lines: Iterable[str]) -> Report:
    """Verify an archive under the test key, twice."""
    archive = [*lines]
    report = verify(found_in(archive), public_keys=[KEY.public_key()])
    assert points(report) == small_verifier.check("\n".join(archive), KEY.public_key())
    return report


def check_against(expected: Expected, lines: Iterable[str]) -> Report:
    """Verify an archive under the test key, and against what is known from elsewhere."""
    return verify(found_in(lines), public_keys=[KEY.public_key()], expected=expected)


def found_in(lines: Iterable[str]) -> Iterable[Found]:
    """Read an archive that is not a file."""
    for number, line in enumerate(lines, start=1):
        yield from records_of_line(line.encode() + b"\n", SourcePlace("archive", number))


def points(report: Report) -> set[Point]:
    """Return what was found and where."""
    return {(finding.code, finding.stream_id, finding.number) for finding in report.findings}


def covering_tip(ledger: Ledger, record: Sealed) -> int:
    """Return the first tip of the record's stream that covers it."""
    tips = [tip for checkpoint in ledger.checkpoints() for tip in tips_of(checkpoint)]
    return min(tip["number"] for tip in tips if tip["stream_id"] == record.stream and tip["number"] >= record.number)


def assert_found_at(report: Report, ledger: Ledger, record: Sealed) -> None:
    """Assert a finding at a record, at the one that names it, or at the tip that covers it."""
    assert report.exit_status == 1
    near = {record.number, record.number + 1, covering_tip(ledger, record)}
    assert any(stream == record.stream and number in near for _, stream, number in points(report))


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a body that hold no others."""
    if isinstance(value, dict):
        return [found for key, member in value.items() for found in leaf_paths(member, (*path, key))]
    if isinstance(value, list | tuple):
        return [found for at, member in enumerate(value) for found in leaf_paths(member, (*path, at))]
    return [path]


def altered(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value + "x"


def edited(record: Sealed, path: tuple[Any, ...], *, remove: bool = False) -> Sealed:
    """Return a copy of a record with one value altered or removed."""
    other = record.copy()
    *parents, last = path
    container: Any = other.body
    for step in parents:
        container = container[step]
    if remove:
        del container[last]
    else:
        container[last] = altered(container[last])
    return other


def replaced(ledger: Ledger, record: Sealed, line: str) -> list[str]:
    """Return the ledger's archive with the line of one record replaced."""
    return [line if one is record else one.line() for one in ledger.records]


def with_body(record: Sealed, text: str) -> str:
    """Return a record's line with another body and the index it had."""
    line = json.loads(record.line())
    line["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"]["stringValue"] = text
    return json.dumps(line)


@QUICK
@given(ledgers(), st.data())
def test_an_intact_copy_is_intact_in_any_order_and_number_of_copies(ledger: Ledger, data: st.DataObject) -> None:
    """Neither the order of lines nor any number of identical copies changes the report of an intact ledger."""
    lines = lines_of(ledger.records)
    once = check(lines)
    assert once.findings == ()
    assert once.exit_status == 0
    assert once.unanchored == 1

    more = data.draw(st.lists(st.sampled_from(lines), max_size=5))
    assert check(data.draw(st.permutations(lines + more))) == once


@QUICK
@given(st.data())
def test_a_vector_gives_the_same_findings_in_any_order(data: st.DataObject) -> None:
    """The findings on a vector do not depend on the order or number of its lines."""
    name = data.draw(st.sampled_from(sorted(EXPECTED)))
    lines = (VECTORS / name).read_text().rstrip("\n").split("\n")
    shuffled = data.draw(st.permutations(lines + data.draw(st.lists(st.sampled_from(lines), max_size=3))))

    one = verify(found_in(lines), public_keys=[public_key()])
    other = verify(found_in(shuffled), public_keys=[public_key()])

    assert points(one) == points(other)
    assert (one.records, one.streams, one.unanchored) == (other.records, other.streams, other.unanchored)


@QUICK
@given(ledgers())
def test_bodies_alone_verify_up_to_the_last_checkpoint_but_one(ledger: Ledger) -> None:
    """A copy that kept only bodies is intact; its last checkpoint, whose signature is lost, is not relied on."""
    report = verify(found_in(record.text for record in ledger.records), public_keys=[KEY.public_key()])

    assert report.findings == ()
    before = len(ledger.checkpoints()) - 1
    assert (report.last_checkpoint.number if report.last_checkpoint else 0) == before
    assert report.verdict == ("intact" if before else "not_checked")


@QUICK
@given(picked())
def test_a_deleted_record_is_missed_at_its_number(pick: tuple[Ledger, Sealed]) -> None:
    """A record that is not in the copy is reported by stream and number, by both verifiers alike."""
    ledger, record = pick
    lines = lines_of(one for one in ledger.records if one is not record)
    report = check(lines)

    assert {("gap", record.stream, record.number), ("tip_missing", record.stream, record.number)} & points(report)
    assert report.exit_status == 1


@QUICK
@given(picked(), st.data(), st.sampled_from(["index kept", "index made anew", "value removed"]))
def test_an_edited_body_is_found(pick: tuple[Ledger, Sealed], data: st.DataObject, how: str) -> None:
    """No value of a body can be altered or removed, with or without its index, that the record is not found."""
    ledger, record = pick
    other = edited(record, data.draw(st.sampled_from(leaf_paths(record.body))), remove=how == "value removed")
    line = other.line() if how == "index made anew" else with_body(record, other.text)

    assert_found_at(check(replaced(ledger, record, line)), ledger, record)


@QUICK
@given(picked(lambda record: record.number > 1), st.data())
def test_a_record_edited_together_with_all_that_follow_is_found(
    pick: tuple[Ledger, Sealed], data: st.DataObject
) -> None:
    """Making the chain and every index anew behind an edited record does not help without the private key."""
    ledger, record = pick
    path = data.draw(st.sampled_from(leaf_paths(record.body)))
    forged = copy.deepcopy(ledger)
    at = ledger.records.index(record)
    forged.records[at] = edited(record, path)
    before = forged.records[at]
    for one in forged.records[at + 1 :]:
        if one.stream == record.stream:
            one.attributes["audit.sequence.prev_hash"] = before.hash
            before = one

    report = check(lines_of(forged.records))

    # A checkpoint behind the record, in the same stream, had to be made anew too: its signature tells.
    signed = {(one.stream, one.number) for one in ledger.checkpoints() if one.number > record.number}
    if not any(code == "signature" and (stream, number) in signed for code, stream, number in points(report)):
        assert_found_at(report, ledger, record)
    assert report.exit_status == 1


@QUICK
@given(picked(lambda record: record.number > 1))
def test_an_inserted_record_is_found_by_its_own_id(pick: tuple[Ledger, Sealed]) -> None:
    """A forged record that takes the number of a true one is the one reported, however well it is linked."""
    ledger, record = pick
    forged = edited(record, ("attributes", "audit.actor.id"))
    forged.attributes["audit.record.id"] = forged.attributes["log.record.uid"] = FORGED_ID

    report = check([forged.line(), *lines_of(ledger.records)])

    assert ("number_reused", record.stream, record.number) in points(report)
    assert {finding.record_id for finding in report.findings} == {forged.record_id}


@QUICK
@given(picked(lambda record: not is_checkpoint(record)), st.data())
def test_an_altered_duplicate_is_found_beside_its_original(pick: tuple[Ledger, Sealed], data: st.DataObject) -> None:
    """A second body under a known record id is reported at its place, and the original is not held against anybody."""
    ledger, record = pick
    path = data.draw(st.sampled_from([path for path in leaf_paths(record.body["attributes"]) if "changes" in path[0]]))
    duplicate = edited(record, ("attributes", *path))

    (finding,) = check(data.draw(st.permutations([duplicate.line(), *lines_of(ledger.records)]))).findings

    assert (finding.code, finding.stream_id, finding.number) == ("conflicting_duplicate", record.stream, record.number)


@QUICK
@given(ledgers(), st.data())
def test_swapped_numbers_are_found_at_both(ledger: Ledger, data: st.DataObject) -> None:
    """Two records of a stream that change places are found at both of them."""
    of_stream = [record for record in ledger.of_stream(stream_id(1)) if record in ledger.records[:-1]]
    one, other = data.draw(st.permutations(of_stream))[:2]
    swapped = {id(one): one.copy(), id(other): other.copy()}
    swapped[id(one)].attributes["audit.sequence.number"] = other.number
    swapped[id(other)].attributes["audit.sequence.number"] = one.number
    report = check(lines_of(swapped.get(id(record), record) for record in ledger.records))

    assert_found_at(report, ledger, one)
    assert_found_at(report, ledger, other)


@QUICK
@given(picked(), st.integers(-1, 40))
def test_a_renumbered_record_is_found_at_the_number_it_left(pick: tuple[Ledger, Sealed], number: int) -> None:
    """A record that takes another number is missed where it was."""
    ledger, record = pick
    other = record.copy()
    other.attributes["audit.sequence.number"] = number if number != record.number else number + 1

    assert_found_at(check(replaced(ledger, record, other.line())), ledger, record)


@QUICK
@given(picked(lambda record: record.stream != stream_id(0)))
def test_a_cut_stream_is_found_at_its_tips(pick: tuple[Ledger, Sealed]) -> None:
    """A stream that ends before the last checkpoint's tip is found at every tip that is missing, one cut whole too."""
    ledger, record = pick
    rest = [one for one in ledger.records if one.stream != record.stream or one.number < record.number]
    tips = {tip["number"] for one in ledger.checkpoints() for tip in tips_of(one) if tip["stream_id"] == record.stream}

    expected = {("tip_missing", record.stream, tip) for tip in tips if tip >= record.number}
    assert points(check(lines_of(rest))) == expected


@QUICK
@given(picked(), st.data())
def test_an_edited_index_is_found_at_its_record(pick: tuple[Ledger, Sealed], data: st.DataObject) -> None:
    """Every field of a log record that disagrees with the body is found at the record, and nothing else is."""
    ledger, record = pick
    line = json.loads(record.line())
    resource = line["resourceLogs"][0]["resource"]
    log_record = line["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    code = data.draw(
        st.sampled_from(
            ["index_differs", "hash_attribute", "event_name_differs", "trace_differs", "resource_differs", "signature"]
            if is_checkpoint(record)
            else ["index_differs", "hash_attribute", "event_name_differs", "trace_differs", "resource_differs"]
        )
    )
    match code:
        case "index_differs":
            tamper_with_attributes(log_record, data)
        case "hash_attribute" | "signature":
            key = "audit.integrity.hash" if code == "hash_attribute" else "audit.integrity.value"
            (at,) = [at for at, pair in enumerate(log_record["attributes"]) if pair["key"] == key]
            log_record["attributes"][at]["value"]["stringValue"] = data.draw(st.sampled_from(["", "00" * 32, "A" * 88]))
            if data.draw(st.booleans()):
                del log_record["attributes"][at]
        case "event_name_differs":
            log_record["eventName"] = "job.cancel"
        case "trace_differs":
            field = data.draw(st.sampled_from(["traceId", "spanId", "flags"]))
            log_record[field] = log_record[field] ^ 1 if field == "flags" else "f" * len(log_record[field])
        case _:
            resource["attributes"][0]["value"] = {"stringValue": "other"}

    assert points(check(replaced(ledger, record, json.dumps(line)))) == {(code, record.stream, record.number)}


def tamper_with_attributes(log_record: dict[str, Any], data: st.DataObject) -> None:
    """Alter, remove, double or add an attribute, or alter a time or the severity."""
    attributes = log_record["attributes"]
    own = [at for at, pair in enumerate(attributes) if not pair["key"].startswith("audit.integrity.")]
    at = data.draw(st.sampled_from(own))
    match data.draw(st.sampled_from(["alter", "retype", "remove", "double", "add", "time", "observed", "severity"])):
        case "alter":
            attributes[at]["value"] = {"stringValue": "other"}
        case "retype":
            number = next(pair for pair in attributes if "intValue" in pair["value"])
            number["value"] = {"stringValue": number["value"]["intValue"]}
        case "remove":
            del attributes[at]
        case "double":
            attributes.append({"key": attributes[at]["key"], "value": {"stringValue": "other"}})
        case "add":
            attributes.extend(key_values({data.draw(st.sampled_from(["audit.note", "error.type"])): "made up"}))
        case "time":
            log_record["timeUnixNano"] = str(int(log_record["timeUnixNano"]) + 1)
        case "observed":
            log_record["observedTimeUnixNano"] = str(int(log_record["observedTimeUnixNano"]) - 1)
        case _:
            log_record["severityNumber"] = 21


@QUICK
@given(ledgers(), st.data())
def test_a_checkpoint_signed_with_another_key_is_found(ledger: Ledger, data: st.DataObject) -> None:
    """A checkpoint that another key signed, or nobody, is found, and is relied on only if the next one names it."""
    at = data.draw(st.sampled_from(range(len(ledger.checkpoints()))))
    other = ledger.checkpoints()[at].copy()
    other.signature = data.draw(
        st.sampled_from([sign(FOREIGN_KEY, other.text.encode()), "", "no base64", "AAAA", None])
    )
    report = check(replaced(ledger, ledger.checkpoints()[at], other.line()))

    assert points(report) == {("signature", other.stream, other.number)}
    is_last = at == len(ledger.checkpoints()) - 1
    assert (report.last_checkpoint.number if report.last_checkpoint else 0) == len(ledger.checkpoints()) - is_last


@QUICK
@given(ledgers().filter(lambda ledger: len(ledger.checkpoints()) > 1), st.data())
def test_a_replayed_checkpoint_is_found(ledger: Ledger, data: st.DataObject) -> None:
    """A checkpoint cannot stand in for a later one, neither as it is nor with its statement in a new record."""
    *_, old, last = ledger.checkpoints()
    moved = last.copy()
    moved.attributes.update(old.statement())
    moved.signature = old.signature
    report = check(replaced(ledger, last, moved.line()))
    assert ("signature", last.stream, last.number) in points(report)
    assert ("checkpoint_number_reused", last.stream, last.number) in points(report)

    ledger.checkpoint(0)
    report = check(replaced(ledger, last, old.line()))
    assert {("gap", last.stream, last.number), ("tip_missing", last.stream, last.number)} & points(report)
    assert "checkpoint_gap" in {code for code, _, _ in points(report)}


@QUICK
@given(ledgers(minutes_between=10))
def test_a_forged_stream_from_before_the_last_checkpoint_is_found(ledger: Ledger) -> None:
    """A stream that no checkpoint names, sealed over five minutes before the last one, is a finding at each record."""
    forgery = Ledger(first_id=1000)
    forgery.append(9)

    report = check(lines_of([*ledger.records, *forgery.records]))

    assert points(report) == {("record_unanchored", stream_id(9), number) for number in (1, 2)}


@QUICK
@given(picked(lambda record: record.number > 1), st.data())
def test_an_inserted_record_with_a_chain_made_anew_is_found(pick: tuple[Ledger, Sealed], data: st.DataObject) -> None:
    """A record put in between, with all that follow renumbered and linked anew, is found at a tip or a signature."""
    ledger, record = pick
    forged = copy.deepcopy(ledger)
    at = ledger.records.index(record)
    inserted = forged.records[at].copy()
    inserted.attributes["audit.record.id"] = inserted.attributes["log.record.uid"] = FORGED_ID
    forged.records.insert(at, inserted)
    rechain(forged, at, renumber=True)

    report = check(data.draw(st.permutations(lines_of(forged.records))))

    signed = {(one.stream, one.number + 1) for one in ledger.checkpoints() if one.number >= record.number}
    covering = (record.stream, covering_tip(ledger, record))
    assert report.exit_status == 1
    assert {(stream, number) for _, stream, number in points(report)} & {covering, *signed}


def rechain(ledger: Ledger, at: int, *, renumber: bool) -> None:
    """Make the chain of the stream of one record anew behind it, as one without the private key can."""
    before = ledger.records[at]
    for one in ledger.records[at + 1 :]:
        if one.stream == before.stream:
            one.attributes["audit.sequence.prev_hash"] = before.hash
            one.attributes["audit.sequence.prev_record_id"] = before.record_id
            one.attributes["audit.sequence.number"] += renumber
            before = one


@QUICK
@given(picked(is_checkpoint))
def test_a_checkpoint_of_which_every_copy_is_gone_is_missed(pick: tuple[Ledger, Sealed]) -> None:
    """A checkpoint that was removed is missed as a record and as a checkpoint, at the one behind it."""
    ledger, checkpoint = pick
    report = check(lines_of(one for one in ledger.records if one is not checkpoint))

    assert_found_at(report, ledger, checkpoint)
    after = ledger.checkpoints()[ledger.checkpoints().index(checkpoint) + 1]
    assert ("checkpoint_gap", after.stream, after.number) in points(report)


@QUICK
@given(picked())
def test_a_removed_stream_is_missed_at_each_of_its_tips(pick: tuple[Ledger, Sealed]) -> None:
    """Not a single record has to be left of a stream that checkpoints name."""
    ledger, record = pick
    report = check(lines_of(one for one in ledger.records if one.stream != record.stream))
    named = {tip["number"] for one in ledger.checkpoints() for tip in tips_of(one) if tip["stream_id"] == record.stream}

    if record.stream == stream_id(0):
        # With all the checkpoints nothing names the other streams any more either.
        assert report.verdict == "not_checked"
        assert report.last_checkpoint is None
    else:
        assert {point for point in points(report) if point[1] == record.stream} == {
            ("tip_missing", record.stream, number) for number in named
        }
        assert report.exit_status == 1


def test_an_empty_archive_is_never_intact() -> None:
    """Nothing at all is no ledger: it cannot be checked, and lacks whatever is known to have been."""
    assert check([]).exit_status == 2
    assert check_against(Expected(at_least=KnownCheckpoint(1, "0" * 64)), []).exit_status == 1


Entry = tuple[Sealed, str]
Act = Callable[[list[Entry], Ledger, Sealed, st.DataObject], set[Sealed]]
"""Tampers with a copy at one of its records, and returns those at which it has to show."""


def delete(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Remove a record."""
    entries[:] = [entry for entry in entries if entry[0] is not record]
    return {record}


def edit_body(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Alter a value of a body, with or without its index."""
    other = edited(record, data.draw(st.sampled_from(leaf_paths(record.body))))
    line = other.line() if data.draw(st.booleans()) else with_body(record, other.text)
    entries[:] = [(one, line if one is record else known) for one, known in entries]
    return {record}


def edit_index(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Alter an attribute, a time or the severity of a log record."""
    line = json.loads(record.line())
    tamper_with_attributes(line["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0], data)
    entries[:] = [(one, json.dumps(line) if one is record else known) for one, known in entries]
    return {record}


def duplicate(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Put an altered copy beside a record."""
    other = record.copy()
    other.attributes["auditrace.changes"] = {"status": {"to": "other"}}
    entries.append((other, other.line()))
    return {record}


def insert(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Put a forged record with the number of a true one beside it, linked as well as that one."""
    forged = edited(record, ("attributes", "audit.actor.id"))
    forged.attributes["audit.record.id"] = forged.attributes["log.record.uid"] = f"{FORGED_ID[:-4]}{len(entries):04}"
    entries.append((forged, forged.line()))
    return {record}


def swap(entries: list[Entry], ledger: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Let a record and another one of its stream change numbers."""
    others = [one for one in ledger.records[:-1] if one.stream == record.stream and one is not record]
    other = data.draw(st.sampled_from(others or [record]))
    moved = {id(record): record.copy(), id(other): other.copy()}
    moved[id(record)].attributes["audit.sequence.number"] = other.number
    moved[id(other)].attributes["audit.sequence.number"] = record.number
    entries[:] = [(one, moved[id(one)].line() if id(one) in moved else known) for one, known in entries]
    return {record, other} if other is not record else set()


def renumber(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Give a record another number."""
    other = record.copy()
    other.attributes["audit.sequence.number"] += data.draw(st.sampled_from([-1, 1, 40]))
    entries[:] = [(one, other.line() if one is record else known) for one, known in entries]
    return {record}


def cut(entries: list[Entry], _: Ledger, record: Sealed, data: st.DataObject) -> set[Sealed]:
    """Remove a record and all that follow in its stream."""
    gone = {id(one) for one, _ in entries if one.stream == record.stream and one.number >= record.number}
    entries[:] = [entry for entry in entries if id(entry[0]) not in gone]
    return {record}


def sign_otherwise(entries: list[Entry], ledger: Ledger, _: Sealed, data: st.DataObject) -> set[Sealed]:
    """Sign a checkpoint with another key."""
    checkpoint = data.draw(st.sampled_from(ledger.checkpoints()))
    other = checkpoint.copy()
    other.signature = sign(FOREIGN_KEY, other.text.encode())
    entries[:] = [(one, other.line() if one is checkpoint else known) for one, known in entries]
    return {checkpoint}


def replay(entries: list[Entry], ledger: Ledger, _: Sealed, data: st.DataObject) -> set[Sealed]:
    """Put what an old checkpoint says, with its signature, into a new record at the end of its stream."""
    checkpoint = data.draw(st.sampled_from(ledger.checkpoints()))
    last = ledger.of_stream(checkpoint.stream)[-1]
    again = checkpoint.copy()
    again.attributes["audit.record.id"] = again.attributes["log.record.uid"] = f"{FORGED_ID[:-4]}{len(entries):04}"
    again.attributes["audit.sequence.number"] = last.number + 1
    again.attributes["audit.sequence.prev_hash"] = last.hash
    again.attributes["audit.sequence.prev_record_id"] = last.record_id
    entries.append((again, again.line()))
    return {again}


ACTS: list[Act] = [delete, edit_body, edit_index, duplicate, insert, swap, renumber, cut, sign_otherwise, replay]


@settings(QUICK, max_examples=5 * QUICK.max_examples)
@given(ledgers(), st.lists(st.sampled_from(ACTS), min_size=1, max_size=4), st.data())
def test_any_combination_of_acts_is_found_at_each_of_them(ledger: Ledger, acts: list[Act], data: st.DataObject) -> None:
    """However many acts come together, each shows at its place, as long as one checkpoint is left that covers it."""
    entries = [(record, record.line()) for record in ledger.records]
    touched: set[Sealed] = set()
    for act in acts:
        rest = [one for one, _ in entries if one in ledger.records[:-1] and one not in touched]
        if rest:
            touched |= act(entries, ledger, data.draw(st.sampled_from(rest)), data)
    report = check(data.draw(st.permutations([line for _, line in entries])))

    found = {(stream, number) for _, stream, number in points(report)}
    left = [one for one, _ in entries if one in ledger.checkpoints() and one not in touched]
    for record in touched:
        covering = [tip for one in left for tip in tips_of(one) if tip["stream_id"] == record.stream]
        tips = [tip["number"] for tip in covering if tip["number"] >= record.number]
        if tips or (record not in ledger.records and record in [one for one, _ in entries]):
            present = {one.number for one, _ in entries if one.stream == record.stream and one not in touched}
            numbers = {record.number, record.number + 1, first_missing(record.number, present), *tips[:1]}
            assert {(record.stream, number) for number in numbers} & found


def first_missing(number: int, present: set[int]) -> int:
    """Return the number at which one is missed: the first of those that are missing together."""
    while number > 1 and number - 1 not in present:
        number -= 1
    return number


@QUICK
@given(ledgers().filter(lambda ledger: len(ledger.checkpoints()) > 1), st.data())
def test_whole_checkpoints_cut_from_the_end_show_against_what_is_known(ledger: Ledger, data: st.DataObject) -> None:
    """What is not promised: a copy cut back to an earlier checkpoint is intact by itself.

    A later checkpoint shows it, or the time, or a receipt of any record that was cut.
    """
    kept = data.draw(st.sampled_from(ledger.checkpoints()[:-1]))
    last = ledger.checkpoints()[-1]
    at = ledger.records.index(kept) + 1
    whole, gone = lines_of(ledger.records), ledger.records[at:]
    copy_of_then = whole[:at]
    missing = data.draw(st.sampled_from(gone))
    number = len(ledger.checkpoints())

    assert check(copy_of_then).findings == ()
    for expected, code in (
        (Expected(at_least=KnownCheckpoint(number, last.hash)), "checkpoint_stale"),
        (Expected(not_before_ns=int(last.log_record()["observedTimeUnixNano"])), "checkpoint_stale"),
        (Expected(receipts=[receipt_of(missing)]), "receipt_missing"),
    ):
        assert check_against(expected, whole).findings == ()
        report = check_against(expected, copy_of_then)
        assert {finding.code for finding in report.findings} == {code}
        assert report.exit_status == 1


def receipt_of(record: Sealed) -> KnownReceipt:
    """Return what the caller of a record was told."""
    return KnownReceipt(record.record_id, record.stream, record.number, record.hash)


@QUICK
@given(ledgers(), st.lists(st.integers(1, 2), min_size=1, max_size=5), st.data())
def test_an_unanchored_tail_is_whatever_somebody_made_it(ledger: Ledger, tail: list[int], data: st.DataObject) -> None:
    """What is not promised: records behind the last checkpoint can be cut, rewritten and added to.

    A receipt shows it, and whoever asks for everything to be anchored does not accept such a copy.
    """
    ends = {record.stream for record in ledger.records if "close" in record.body["event_name"]}
    honest = copy.deepcopy(ledger)
    receipts = [receipt_of(honest.append(stream)) for stream in tail if stream_id(stream) not in ends]
    rewritten = copy.deepcopy(ledger)
    for stream in tail if data.draw(st.booleans()) else [2, 2]:
        if stream_id(stream) not in ends:
            rewritten.append(stream, **{"audit.actor.id": "eve"})
    for made in (honest, ledger, rewritten):
        report = check(lines_of(made.records))
        assert (report.verdict, report.findings) == ("intact", ())

    if receipts:
        expected = Expected(receipts=receipts)
        assert check_against(expected, lines_of(honest.records)).findings == ()
        for made in (ledger, rewritten):
            codes = [finding.code for finding in check_against(expected, lines_of(made.records)).findings]
            assert codes == ["receipt_missing"] * len(receipts)
        behind = check_against(Expected(all_anchored=True), lines_of(honest.records))
        assert [finding.code for finding in behind.findings][: len(receipts)] == ["record_unanchored"] * len(receipts)
