"""Every finding code: the smallest wrong that gives it, and that it gives nothing else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from telemetry.audit.canonical import sha256_hex
from telemetry.audit.checkpoint import leaves, sign
from telemetry.audit.verify import Code, Report, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import Found, SourcePlace
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed, line_of, stream_id

LAST = "019b76da-0000-7000-8000-000000000009"


def ledger() -> Ledger:
    """Return a ledger of two streams and two checkpoints; stream 1 goes on behind the last."""
    made = Ledger()
    made.append(1)
    made.append(1)
    made.append(2)
    made.checkpoint(1)
    made.append(2)
    made.checkpoint(1)
    made.append(1)
    return made


def check(lines: list[str], *, key: Any = KEY) -> Report:
    """Verify lines under a key, or under none."""
    found = (
        one for at, line in enumerate(lines, 1) for one in records_of_line(f"{line}\n".encode(), SourcePlace("a", at))
    )
    return verify(found, public_keys=[] if key is None else [key.public_key()])


def codes(report: Report) -> list[str]:
    """Return the codes found, each with where it is."""
    return [f"{one.code} {(one.stream_id or '-')[-1]}/{one.number or '-'}" for one in report.findings]


def body(change: Callable[[dict[str, Any]], object]) -> list[str]:
    """Return the ledger with a change in the body of the last record, which no checkpoint covers; its index agrees."""
    made = ledger()
    change(made.records[-1].body)
    return [record.line() for record in made.records]


def attributes(**changes: Any) -> list[str]:
    """Return the ledger with changed attributes in the last record; None removes one, `__` stands for a dot."""

    def change(members: dict[str, Any]) -> None:
        for name, value in changes.items():
            key = name.replace("__", ".")
            members["attributes"].pop(key, None)
            if value is not None:
                members["attributes"][key] = value

    return body(change)


def text(change: Callable[[str], str]) -> list[str]:
    """Return the ledger with a change in the text of the last record's body; the index agrees but for that."""
    made = ledger()
    record = made.records[-1].log_record()
    changed = change(made.records[-1].text)
    record["body"] = {"stringValue": changed}
    for pair in record["attributes"]:
        if pair["key"] == "audit.integrity.hash":
            pair["value"]["stringValue"] = sha256_hex(changed.encode())
    return [*(one.line() for one in made.records[:-1]), line_of(record, made.records[-1].body["resource"])]


def index(change: Callable[[dict[str, Any]], object], *, resource: dict[str, Any] | None = None) -> list[str]:
    """Return the ledger with a change in the log record of the last record, or in its resource."""
    made = ledger()
    record = made.records[-1].log_record()
    change(record)
    return [
        *(one.line() for one in made.records[:-1]),
        line_of(record, made.records[-1].body["resource"] if resource is None else resource),
    ]


def records(change: Callable[[Ledger], object]) -> list[str]:
    """Return the ledger with a change in its records."""
    made = ledger()
    change(made)
    return [record.line() for record in made.records]


def resign(record: Sealed, **stated: Any) -> None:
    """State something else in a checkpoint and sign it with the true key."""
    for name, value in stated.items():
        key = f"auditrace.checkpoint.{name}"
        record.attributes[key] = value
        if value is None:
            del record.attributes[key]
    record.signature = sign(KEY, record.text.encode())


def change_tip(made: Ledger, **changes: Any) -> None:
    """Change the first tip of the last checkpoint, which is stream 1's, and sign it with the true key."""
    last = made.checkpoints()[-1]
    tip, *others = last.attributes["auditrace.checkpoint.tips"]
    resign(last, tips=[{**tip, **changes}, *others])
    relink(made)


def skip_one(made: Ledger) -> None:
    """Let a third checkpoint cover only the last of two records of stream 2, as if the other were covered before."""
    made.append(2)
    made.append(2)
    third = made.checkpoint(1)
    tips = third.attributes["auditrace.checkpoint.tips"]
    (other,) = [tip for tip in tips if tip["stream_id"] == stream_id(2)]
    last = made.of_stream(stream_id(2))[-1]
    changed = {**other, "from": last.number, "leaves": leaves([bytes.fromhex(last.hash)])}
    resign(third, tips=[*(tip for tip in tips if tip is not other), changed])


def relink(made: Ledger) -> None:
    """Make the record behind the last checkpoint name it again."""
    made.records[-1].attributes["audit.sequence.prev_hash"] = made.records[-2].hash


def drop_links(made: Ledger) -> None:
    """Remove from the last record what it says about the one before."""
    del made.records[-1].attributes["audit.sequence.prev_hash"]
    del made.records[-1].attributes["audit.sequence.prev_record_id"]


def second_checkpoint(made: Ledger, **stated: Any) -> None:
    """State something else in the last checkpoint, signed with the true key."""
    resign(made.checkpoints()[-1], **stated)
    relink(made)


def third_checkpoint(made: Ledger) -> None:
    """Put a checkpoint behind the last record that claims to be the first, signed with another key."""
    third = made.append(1, "audit.checkpoint", **made.checkpoints()[0].statement())
    third.signature = sign(FOREIGN_KEY, third.text.encode())


def forged(made: Ledger, record_id: str) -> Sealed:
    """Return another record in the place of the last one."""
    other = made.records[-1].copy()
    other.attributes["audit.record.id"] = other.attributes["log.record.uid"] = record_id
    other.attributes["audit.actor.id"] = "eve"
    return other


def ended(made: Ledger) -> None:
    """Put a record behind the end of stream 1."""
    made.append(1, "audit.stream.close")
    made.append(1)


LATE = "2025-12-31T00:00:00.000000000Z"

CASES: list[tuple[list[str], list[str]]] = [
    # 1. Read.
    ([*records(lambda made: made), '{"resourceLogs":[{'], ["torn_line -/-"]),
    # 2. Body.
    (index(lambda record: record.pop("body")), ["body_missing 1/6"]),
    (index(lambda record: record.update(body={"kvlistValue": {}})), ["body_missing 1/6"]),
    (text(lambda body: body[:-1]), ["body_not_json 1/6"]),
    (text(lambda _: "[]"), ["body_not_json 1/6"]),
    (text(lambda body: body.replace(":", ": ", 1)), ["body_not_canonical 1/6"]),
    (text(lambda body: body.replace('"trace_flags":', '"trace_flags":0,"trace_flags":')), ["body_not_canonical 1/6"]),
    (text(lambda body: body.replace("alice", "\\u0061lice")), ["body_not_canonical 1/6"]),
    (text(lambda body: body.replace('"trace_flags":1,', "")), ["member_missing 1/6", "trace_differs 1/6"]),
    (body(lambda body: body.update(trace_flags=256)), ["member_missing 1/6", "trace_differs 1/6"]),
    (body(lambda body: body.update(note="more")), ["member_missing 1/6"]),
    (body(lambda body: body.update(timestamp="2026-01-01T00:00:00.000000Z")), ["timestamp_form 1/6"]),
    (body(lambda body: body.update(observed_timestamp="2026-02-30T00:00:00.000000000Z")), ["timestamp_form 1/6"]),
    (body(lambda body: body.update(trace_id="0" * 32)), ["trace_id_form 1/6"]),
    (body(lambda body: body.update(trace_id="A" * 32)), ["trace_id_form 1/6"]),
    (body(lambda body: body.update(span_id="0" * 16)), ["span_id_form 1/6"]),
    (attributes(audit__actor__id=None), ["attribute_missing 1/6"]),
    (attributes(audit__actor__id=7), ["attribute_missing 1/6"]),
    (attributes(audit__actor__type="root"), ["attribute_missing 1/6"]),
    (attributes(audit__target__type="spaceship"), ["attribute_missing 1/6"]),
    (attributes(auditrace__changes={"status": "created"}), ["attribute_missing 1/6"]),
    (attributes(auditrace__truncated=["a", 1]), ["attribute_missing 1/6"]),
    (attributes(vendor__thing={"objects": "are for changes and tips"}), ["attribute_missing 1/6"]),
    (attributes(auditrace__result="denied"), ["outcome_pair 1/6"]),
    (attributes(log__record__uid="other"), ["uid_differs 1/6"]),
    # 3. Index.
    (index(lambda record: record["attributes"].pop(0)), ["index_differs 1/6"]),
    (index(lambda record: record.update(severityNumber=17)), ["index_differs 1/6"]),
    (index(lambda record: record["attributes"].pop()), ["hash_attribute 1/6"]),
    (index(lambda record: record.update(eventName="job.cancel")), ["event_name_differs 1/6"]),
    (index(lambda record: record.update(traceId="f" * 32)), ["trace_differs 1/6"]),
    (index(lambda record: record.update(spanId="f" * 16)), ["trace_differs 1/6"]),
    (index(lambda record: record.update(flags=1 - record["flags"])), ["trace_differs 1/6"]),
    (index(lambda _: None, resource={"service.name": "other"}), ["resource_differs 1/6"] * 2),
    # 4. Duplicates.
    (records(lambda made: made.records.append(forged(made, LAST))), ["conflicting_duplicate 1/6"]),
    (records(lambda made: made.records.append(forged(made, "other"))), ["number_reused 1/6"]),
    # 5. Numbers.
    (records(lambda made: made.records.pop(1)), ["gap 1/2"]),
    (records(lambda made: made.records.pop(0)), ["gap 1/1"]),
    # 6. Links.
    (records(drop_links), ["link_broken 1/6"]),
    (attributes(audit__sequence__prev_hash="0" * 64), ["link_broken 1/6"]),
    (attributes(audit__sequence__prev_hash="no hash"), ["link_broken 1/6"]),
    (attributes(audit__sequence__prev_record_id="other"), ["link_broken 1/6"]),
    (
        attributes(audit__sequence__stream_id=stream_id(3), audit__sequence__number=1),
        ["genesis_has_prev 3/1"],
    ),
    # 7. Signatures.
    (
        records(lambda made: setattr(made.records[-2], "signature", sign(FOREIGN_KEY, made.records[-2].text.encode()))),
        ["signature 1/5"],
    ),
    (records(lambda made: setattr(made.records[-2], "signature", None)), ["signature 1/5"]),
    # 8. Checkpoints.
    (records(lambda made: second_checkpoint(made, number=3)), ["checkpoint_gap 1/5"]),
    (records(lambda made: second_checkpoint(made, prev_hash="0" * 64)), ["checkpoint_link 1/5"]),
    (records(lambda made: second_checkpoint(made, prev_signature="AAAA")), ["checkpoint_link 1/5"]),
    (records(lambda made: second_checkpoint(made, prev_hash=None)), ["checkpoint_link 1/5"]),
    (records(third_checkpoint), ["checkpoint_number_reused 1/7", "signature 1/7"]),
    # 9. Tips.
    (records(lambda made: made.records.pop(6)), ["tip_missing 2/3"]),
    (records(lambda made: change_tip(made, hash="0" * 64)), ["tip_hash 1/4"]),
    (records(lambda made: change_tip(made, leaves="0" * 64)), ["leaves 1/4"]),
    (records(lambda made: change_tip(made, **{"from": 2})), ["leaves 1/4"]),
    (records(lambda made: skip_one(made)), ["leaves 2/5"]),
    # 10. The rest.
    (records(lambda made: second_checkpoint(made, records=99)), ["checkpoint_total 1/5"]),
    (records(lambda made: second_checkpoint(made, streams=1)), ["checkpoint_total 1/5"]),
    (body(lambda body: body.update(observed_timestamp=LATE)), ["record_unanchored 1/6"]),
    (records(ended), ["after_close 1/8"]),
]


@pytest.mark.parametrize(
    ("lines", "expected"), CASES, ids=[f"{at}-{' '.join(case[1])}" for at, case in enumerate(CASES)]
)
def test_a_wrong_gives_its_code_where_it_is_and_nothing_else(lines: list[str], expected: list[str]) -> None:
    """The smallest wrong of each kind gives exactly its code, at its stream and number."""
    report = check(lines)

    assert codes(report) == sorted(expected, key=lambda code: tuple(reversed(code.split())))
    assert report.exit_status == (0 if expected == ["torn_line -/-"] else 1)


def test_every_code_has_a_case() -> None:
    """No finding code is without a case that gives it, here or where copies are compared with what is known.

    Those of proofs have their cases in `tests/contract/test_verify_proof.py`.
    """
    elsewhere = {"checkpoint_stale", "receipt_missing", "proof_form", "proof_differs"}
    assert {code.split()[0] for _, expected in CASES for code in expected} == set(get_args(Code)) - elsewhere


def test_the_document_explains_every_code() -> None:
    """The table of codes in the document has each code once, and no other."""
    table = (Path(__file__).parents[2] / "docs" / "audit-format.md").read_text().split("## 8. Finding codes")[1]
    rows = [line.split("|")[1] for line in table.split("\n") if line.startswith("| `")]
    assert sorted(code for row in rows for code in re.findall("`([a-z_]+)`", row)) == sorted(get_args(Code))


def test_the_untouched_ledger_is_intact() -> None:
    """The ledger that the cases start from gives no finding, with a key or without."""
    for key in (KEY, None):
        report = check(records(lambda made: made), key=key)
        assert report.findings == ()
        assert (report.exit_status, report.unanchored) == (0, 2)
        assert report.signatures == ("not_checked" if key is None else "checked")


@pytest.mark.parametrize("key", [KEY, None])
def test_nothing_to_check_is_not_intact(key: object) -> None:
    """A copy without any record is never intact: exit status 2."""
    report = check([], key=key)

    assert (report.verdict, report.exit_status) == ("not_checked", 2)


def test_a_key_without_a_checkpoint_checks_nothing() -> None:
    """With a public key and no checkpoint the verdict is not_checked; without a key the chain alone is intact."""
    made = Ledger()
    made.append(1)
    lines = [record.line() for record in made.records]

    assert check(lines).exit_status == 2
    assert check(lines, key=None).exit_status == 0


def test_a_wrong_is_broken_even_when_there_is_no_checkpoint() -> None:
    """What is found wrong counts, whether or not there is a checkpoint to check against."""
    made = Ledger()
    made.append(1)
    made.records[-1].attributes["audit.sequence.prev_hash"] = "0" * 64

    assert check([record.line() for record in made.records]).exit_status == 1


def test_another_key_finds_every_signature_and_relies_on_no_checkpoint() -> None:
    """Under a key that signed nothing every checkpoint is a finding, and none anchors a record."""
    report = check(records(lambda made: made), key=FOREIGN_KEY)

    assert codes(report) == ["signature 1/4", "signature 1/5"]
    assert report.last_checkpoint is None
    assert report.unanchored == report.records
    bodies = [Found(record.text, None, SourcePlace("a", 1)) for record in ledger().records]
    assert codes(verify(bodies, public_keys=[FOREIGN_KEY.public_key()])) == ["signature 1/4"]


def test_any_of_several_keys_may_have_signed() -> None:
    """Checkpoints of several keys verify when all of them are given."""
    made = ledger()
    made.key = FOREIGN_KEY
    made.checkpoint(2)
    found = [
        one for record in made.records for one in records_of_line(f"{record.line()}\n".encode(), SourcePlace("a", 1))
    ]

    assert verify(found, public_keys=[KEY.public_key(), FOREIGN_KEY.public_key()]).findings == ()
    assert codes(verify(found, public_keys=[KEY.public_key()])) == ["signature 2/4"]


def test_checkpoints_may_follow_the_end_of_a_stream() -> None:
    """A clean end and the end of a lost lane are no findings, nor are the checkpoints behind them."""
    made = ledger()
    made.append(1, "audit.stream.close")
    made.checkpoint(1)
    made.checkpoint(1, closed=[2])
    made.checkpoint(3)

    report = check([record.line() for record in made.records])

    assert report.findings == ()
    assert report.streams == 3


def test_a_record_behind_a_closed_tip_is_found_without_a_closing_record() -> None:
    """A lane that went on after a checkpoint closed its stream is found."""
    made = ledger()
    made.checkpoint(1, closed=[2])
    made.append(2)

    assert codes(check([record.line() for record in made.records])) == ["after_close 2/4"]


def test_a_missing_checkpoint_costs_no_more_than_itself() -> None:
    """A checkpoint that is not there is found by its numbers alone; the later ones still anchor the records."""
    made = ledger()
    made.append(1)
    made.checkpoint(2)
    del made.records[5]

    report = check([record.line() for record in made.records])

    assert codes(report) == ["gap 1/4", "tip_missing 1/4", "checkpoint_gap 1/5"]
    assert report.last_checkpoint is not None
    assert report.last_checkpoint.number == 3


def test_a_tip_that_is_missing_does_not_hide_what_the_next_one_shows() -> None:
    """Behind a missing tip the leaves of the next one are compared all the same."""
    made = Ledger()
    for _ in range(2):
        made.append(2)
        made.checkpoint(1)
    (edited,) = [record for record in made.records if record.stream == stream_id(2) and record.number == 3]
    edited.attributes["audit.actor.id"] = "eve"
    made.records = [record for record in made.records if (record.stream, record.number) != (stream_id(2), 2)]

    found = codes(check([record.line() for record in made.records]))
    assert found == ["gap 2/2", "tip_missing 2/2", "leaves 2/3", "tip_hash 2/3"]


def test_records_of_other_services_may_have_their_own_vocabulary() -> None:
    """Outside the catalogue of events any target type and source goes, and so do attributes that nobody listed."""
    made = ledger()
    extra = {"audit.target.type": "invoice", "auditrace.source": "intake", "vendor.list": [1, "two", True]}
    made.records[-1].body["event_name"] = "invoice.paid"
    made.records[-1].attributes.update(extra)

    assert check([record.line() for record in made.records]).findings == ()


def test_a_collector_may_add_attributes_and_leave_fields_out() -> None:
    """Attributes outside the format's names are ignored, and a field that is not there is no disagreement."""

    def change(record: dict[str, Any]) -> None:
        record["attributes"].append({"key": "k8s.pod.name", "value": {"doubleValue": 1.5}})
        for field in ("timeUnixNano", "observedTimeUnixNano", "severityNumber", "eventName", "flags", "spanId"):
            del record[field]
        record["traceId"] = record["traceId"].upper()

    assert check(index(change)).findings == ()
    assert check(index(lambda record: record.update(attributes=[]), resource={})).findings == ()


def test_all_findings_are_reported() -> None:
    """Several wrongs are several findings, each where it is."""
    made = ledger()
    made.records[-1].attributes["log.record.uid"] = "other"
    made.records[-1].body["span_id"] = "0" * 16
    made.records[6].attributes["auditrace.result"] = "noop"
    del made.records[1]

    report = check([record.line() for record in made.records])

    assert codes(report) == ["gap 1/2", "span_id_form 1/6", "uid_differs 1/6", "leaves 2/3", "tip_hash 2/3"]
    assert "gap" in report.summary()


def test_an_index_tells_where_an_unreadable_body_belongs() -> None:
    """A finding on a body that cannot be read names stream, number and record id of its log record."""
    (finding,) = check(text(lambda body: body[:-1])).findings

    assert (finding.code, finding.stream_id, finding.number, finding.record_id) == (
        "body_not_json",
        stream_id(1),
        6,
        LAST,
    )


def test_the_report_encodes_to_the_members_of_its_json() -> None:
    """The report has the members that `verify --json` prints, and nothing that JSON does not have."""
    report = msgspec.to_builtins(check(text(lambda body: body[:-1])))

    assert report.keys() == {
        *("verdict", "signatures", "findings", "records", "streams", "checkpoints", "unanchored", "last_checkpoint"),
        *("lost", "window", "first_checkpoint", "covers", "keys", "other_keys", "receipts", "beginning"),
    }
    assert report["findings"][0].keys() == {"code", "detail", "stream_id", "number", "record_id", "place"}


@pytest.mark.parametrize(
    "deep",
    [
        *('{"a":' * depth + "1" + "}" * depth for depth in (*range(940, 1000, 3), 5000)),
        "[" * 30_000,
        '{"attributes":{"audit.record.id":"\\ud800"}}',
    ],
)
def test_hostile_bodies_are_findings_and_not_crashes(deep: str) -> None:
    """Bodies of absurd depth, or with lone surrogates, are reported like any other wrong body."""
    report = verify([Found(deep, None, SourcePlace("a", 1))])

    assert report.verdict == "broken"
