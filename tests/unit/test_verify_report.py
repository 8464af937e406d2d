"""What a report says beside its findings: keys, times, where receipts are, and what a copy lacks, in words."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from telemetry.audit.signer import Signer
from telemetry.audit.verify import Expected, Found, KnownReceipt, Report, Scope, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.record.values import differing, shown
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed, key_values, line_of, stream_id

FINGERPRINT, FOREIGN = Signer(KEY).fingerprint, Signer(FOREIGN_KEY).fingerprint
CERTIFICATE = "audit.integrity.certificate"


def ledger() -> Ledger:
    """Return a ledger of six checkpoints and three streams, which ends with a checkpoint."""
    made = Ledger(minutes_between=0.1)
    for stream in (1, 2, 1, 3, 1, 2):
        made.append(stream)
        made.checkpoint(1)
    return made


def check(
    records: Iterable[Sealed],
    *keys: Ed25519PrivateKey,
    certificate: str | None = None,
    bodies_only: bool = False,
    receipts: Sequence[KnownReceipt] = (),
    scope: Scope | None = None,
) -> Report:
    """Verify records, or their bodies alone; `certificate` is the key that their log records name."""
    found: list[Found] = []
    for at, record in enumerate(records, 1):
        place = SourcePlace("copy", at)
        resource = (
            record.body["resource"] if certificate is None else {**record.body["resource"], CERTIFICATE: certificate}
        )
        copies = records_of_line(f"{line_of(record.log_record(), resource)}\n".encode(), place)
        found.extend([Found(record.text, None, place)] if bodies_only else copies)
    public_keys = [key.public_key() for key in keys]
    return verify(found, public_keys=public_keys, scope=scope, expected=Expected(receipts=receipts))


def receipt_of(record: Sealed) -> KnownReceipt:
    """Return the receipt of a record."""
    return KnownReceipt(record.record_id, record.stream, record.number, record.hash)


def uses(report: Report) -> list[tuple[str | None, bool, int, int | None, int | None]]:
    """Return the keys of a report."""
    return [(key.fingerprint, key.is_given, key.checkpoints, key.first, key.last) for key in report.keys]


@pytest.mark.parametrize("bodies_only", [False, True])
def test_the_keys_that_signed_are_named(bodies_only: bool) -> None:
    """Each given key, and each that a rotation names, with the checkpoints that it signed; one that signed none too."""
    made = ledger()
    made.rotate(1, FOREIGN_KEY)
    made.checkpoint(1)
    made.checkpoint(1)
    unused = Ed25519PrivateKey.from_private_bytes(bytes(range(7, 39)))
    # The last checkpoint's signature is told by the next one only, where copies kept nothing but bodies.
    last = 7 if bodies_only else 8
    both = [(FINGERPRINT, True, 6, 1, 6), (FOREIGN, True, last - 6, 7, last)]
    assert uses(check(made.records, KEY, FOREIGN_KEY, bodies_only=bodies_only)) == both
    if not bodies_only:
        old = check(made.records, KEY, unused)
        assert uses(old) == [
            (FINGERPRINT, True, 6, 1, 6),
            (Signer(unused).fingerprint, True, 0, None, None),
            (FOREIGN, False, 2, 7, 8),
        ]
        assert f"2 checkpoints (7 to 8) are signed by {FOREIGN} (named by a rotation)" in old.summary()
        assert f"no checkpoint here is signed by {Signer(unused).fingerprint} (given)" in old.summary()
    new = check(made.records, FOREIGN_KEY, bodies_only=bodies_only)
    assert new.verdict == "intact"
    assert sorted(uses(new)) == sorted([(FOREIGN, True, last - 6, 7, last), (FINGERPRINT, False, 6, 1, 6)])
    assert check(made.records, bodies_only=bodies_only).keys == ()


def test_a_wrong_key_is_said_in_one_sentence() -> None:
    """The key that the copy names and the given one stand in one line, whatever number of findings follows."""
    report = check(ledger().records, FOREIGN_KEY, certificate=FINGERPRINT)

    (other,) = report.other_keys
    assert (other.fingerprint, other.checkpoints, other.first, other.last) == (FINGERPRINT, 6, 1, 6)
    assert [finding.code for finding in report.findings] == ["signature"] * 6
    lines = report.summary().splitlines()
    assert lines[1].startswith(f"6 checkpoints (1 to 6) are signed by {FINGERPRINT}, you gave {FOREIGN}: ")
    assert "`auditrace keys public --all`" in lines[1]


@pytest.mark.parametrize("bodies_only", [False, True])
def test_a_copy_that_names_no_key_says_so(bodies_only: bool) -> None:
    """Where no log record names the key, as in bodies alone, the sentence says that it is not known."""
    report = check(ledger().records, FOREIGN_KEY, bodies_only=bodies_only)

    assert [other.fingerprint for other in report.other_keys] == [None]
    assert f"signed by a key that the copy does not name, you gave {FOREIGN}" in report.summary()


@pytest.mark.parametrize("certificate", [FINGERPRINT, None, "sha256:\x1b[2J"])
def test_a_changed_checkpoint_is_no_wrong_key(certificate: str | None) -> None:
    """One signature that does not hold among others that do is a finding, and no question of keys."""
    made = ledger()
    made.checkpoints()[2].signature = made.checkpoints()[1].signature
    report = check(made.records, KEY, certificate=certificate)

    assert "signature" in {finding.code for finding in report.findings}
    assert report.other_keys == ()
    assert "you gave" not in report.summary()


def test_the_time_that_a_copy_covers_is_named() -> None:
    """When the first and the last record were sealed, and the first and the last checkpoint made."""
    made = ledger()
    made.append(2)
    first, last = made.records[0].body["observed_timestamp"], made.records[-1].body["observed_timestamp"]
    report = check(made.records, KEY)
    checkpoints = made.checkpoints()

    assert report.covers is not None
    assert (report.covers.first, report.covers.last) == (first, last)
    assert report.first_checkpoint is not None
    assert (report.first_checkpoint.number, report.first_checkpoint.hash) == (1, checkpoints[0].hash)
    summary = report.summary()
    assert f"records were sealed from {first} to {last}" in summary
    times = f"{checkpoints[0].body['observed_timestamp']} to {checkpoints[-1].body['observed_timestamp']}"
    assert f"checkpoints 1 to 6 were made from {times}" in summary
    assert check([], KEY).covers is None


def test_a_receipt_tells_where_its_record_is_and_what_covers_it() -> None:
    """The place in the copy, and number and time of the first checkpoint that covers the record, if one does."""
    made = ledger()
    late = made.append(2)
    covered, gone = made.records[3], made.records[4]
    wanted = [receipt_of(one) for one in (covered, late, gone)]
    report = check([one for one in made.records if one is not gone], KEY, receipts=wanted)

    at_covered, at_late, nowhere = report.receipts
    second = made.checkpoints()[1]
    assert (at_covered.record_id, at_covered.place) == (covered.record_id, "copy:4")
    assert at_covered.checkpoint is not None
    assert (at_covered.checkpoint.number, at_covered.checkpoint.hash) == (2, second.hash)
    assert (at_late.place, at_late.checkpoint) == (f"copy:{len(made.records) - 1}", None)
    assert (nowhere.place, nowhere.checkpoint) == (None, None)
    lines = report.summary().splitlines()
    assert (
        f"found at copy:4, covered by checkpoint 2 of {second.body['observed_timestamp']}"
        in lines[-len(report.findings) - 3]
    )
    assert any(
        line.endswith(f"found at copy:{len(made.records) - 1}, not covered by a checkpoint yet") for line in lines
    )
    assert any(line.startswith(f"receipt of {gone.record_id}") and line.endswith(": not found") for line in lines)


def test_a_receipt_is_covered_only_if_its_record_holds_its_number() -> None:
    """A forged record under a number that a checkpoint covers is not covered by it."""
    made = ledger()
    forged = made.records[3].copy()
    forged.attributes["audit.actor.id"] = "eve"
    forged.attributes["audit.record.id"] = forged.attributes["log.record.uid"] = made.records[3].record_id[:-1] + "f"
    report = check([*made.records, forged], KEY, receipts=[receipt_of(forged), receipt_of(made.records[3])])

    assert [seen.place for seen in report.receipts] == [f"copy:{len(made.records) + 1}", "copy:4"]
    assert [seen.checkpoint and seen.checkpoint.number for seen in report.receipts] == [None, 2]


def test_a_copy_without_the_beginning_says_what_is_missing_and_what_to_do() -> None:
    """What is missing, that another sink may have it, how to fill this one, and what can be verified without it."""
    made = ledger()
    third = made.checkpoints()[2]
    late = made.records[made.records.index(third) :]
    report = check(late, KEY)

    assert report.beginning is not None
    assert (report.beginning.checkpoint, report.beginning.missing_checkpoints) == (report.first_checkpoint, 2)
    begins = [(one.stream_id, one.number) for one in report.beginning.streams]
    assert begins == [(stream_id(1), third.number), (stream_id(2), 3)]
    summary = report.summary()
    assert (
        "this copy lacks the beginning of the ledger; missing: checkpoints 1 to 2, the records before number 5 of"
        in (summary.replace(f"number {third.number} of", "number 5 of"))
    )
    assert f"the records before number 3 of stream {stream_id(2)}" in summary
    assert "auditrace verify THIS OTHER" in summary
    assert "`auditrace relay --replay-all`" in summary
    time = third.body["observed_timestamp"]
    assert f"--since {time}" in summary
    # What is advised works.
    since = check(late, KEY, scope=Scope(since_ns=int(third.log_record()["observedTimeUnixNano"])))
    assert (since.verdict, since.beginning) == ("intact", None)


@pytest.mark.parametrize("lost", [0, 3, -1])
def test_a_copy_that_lacks_something_else_says_nothing_of_the_beginning(lost: int) -> None:
    """A record that is missing from a ledger whose first checkpoint is there is a gap, and no other sink's."""
    made = ledger()
    made.records.pop(lost)

    assert check(made.records, KEY).beginning is None


def test_a_copy_of_the_end_alone_lacks_the_beginning_too() -> None:
    """Without any checkpoint streams that begin later show it; a new ledger lacks nothing."""
    made = Ledger()
    made.append(1)
    made.append(1)
    assert check(made.records, KEY).beginning is None
    report = check(made.records[2:], KEY)
    assert report.beginning is not None
    assert (report.beginning.checkpoint, report.beginning.missing_checkpoints) == (None, 0)
    assert "missing: the records before number 3 of stream" in report.summary()
    assert "--since" not in report.summary()


def test_many_streams_are_not_all_named_in_the_text() -> None:
    """The text stays readable however many streams lack their beginning; the JSON has them all."""
    made = Ledger()
    for stream in range(1, 9):
        made.append(stream)
    made.checkpoint(1)
    made.checkpoint(1)
    report = check([made.checkpoints()[1], *(one for one in made.records if one.number == 2)], KEY)
    assert report.beginning is not None
    assert len(report.beginning.streams) == 8
    assert "the beginning of 5 more streams" in report.summary()


def test_an_altered_index_shows_both_values() -> None:
    """What the log record says and what the body says stand in the finding, for attributes, times and resources."""
    made = Ledger()
    record = made.append(1)
    log_record = record.log_record()
    altered: dict[str, Any] = {**record.attributes, "audit.actor.id": "eve\x1b[2J", "auditrace.tenant.id": "x" * 5000}
    altered["audit.integrity.hash"] = record.hash
    del altered["audit.target.id"]
    log_record |= {
        "attributes": key_values(altered),
        "timeUnixNano": "1",
        "severityNumber": 17,
        "eventName": "job.cancel",
    }
    line = line_of(log_record, {**record.body["resource"], "service.version": "9"})
    report = verify(records_of_line(f"{line}\n".encode(), SourcePlace("a", 1)))

    details = {finding.code + " " + finding.detail for finding in report.findings}
    assert 'index_differs attribute audit.actor.id is "eve\\u001b[2J" in the log record, "alice" in the body' in details
    assert 'index_differs attribute audit.target.id is not in the log record, "job-2" in the body' in details
    assert 'event_name_differs the event name is "job.cancel" in the log record, "job.create" in the body' in details
    assert 'resource_differs service.version of the resource is "9" in the log record, "0.1.0" in the body' in details
    assert "index_differs the severity is 17 in the log record, 9 in the body" in details
    time = record.body["timestamp"]
    assert (
        f'index_differs the time is "1970-01-01T00:00:00.000000001Z" in the log record, "{time}" in the body' in details
    )
    assert max(map(len, details)) < 400
    assert "\x1b" not in report.summary()
    assert max(map(len, report.summary().splitlines())) < 500
    assert json.loads(json.dumps([finding.detail for finding in report.findings]))


def test_long_values_are_cut_around_what_differs() -> None:
    """Two long texts that differ late are not shown as the same beginning."""
    one, other = differing("a" * 1000 + "b" + "d" * 1000, "a" * 1000 + "c" + "d" * 1000)

    assert one != other
    assert one.startswith("…aaaa")
    assert "b" in one
    assert "c" in other
    assert max(len(one), len(other)) <= 102
    assert differing({"b": 1, "a": 2}, {"a": 2, "b": 3}) == ('{"a": 2, "b": 1}', '{"a": 2, "b": 3}')
    assert shown(["x" * 200]).endswith("…")


def test_a_text_of_any_length_stays_one_readable_line() -> None:
    """A record whose names are megabytes long makes no line that fills the screen."""
    made = Ledger()
    made.append(1, **{"auditrace.reason": "x"}).body["event_name"] = "y" * 100_000 + "\n"
    report = check(made.records)

    assert all(len(line) < 1_100 for line in report.summary().splitlines())
