"""The fast path through steps 2 and 3 against the explaining one, case by case.

tests/property/test_fast_path.py holds the two together at random.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from telemetry import names
from telemetry.audit.canonical import canonical_bytes
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.otlp_json import EncodedFields
from telemetry.audit.verify.record.body import EVENT_NAME, OBSERVED_TIMESTAMP, nanoseconds, read_body
from telemetry.audit.verify.record.fast_path import prove
from telemetry.audit.verify.record.index import index_faults
from telemetry.errors import CanonicalFormError
from tests.support.ledger_maker import Ledger, Sealed, line_of
from tests.unit.test_verify_vectors import EXPECTED, VECTORS

TEXTS = [
    "",
    "other",
    "é",
    "😀",
    '"\\\n\u0000\u2028',
    "default",
    "success",
    "1",
    "0" * 32,
    "2026-01-01T00:00:00.000000000Z",
]
VALUES: list[Any] = [
    *TEXTS,
    0,
    1,
    -1,
    2**53 - 1,
    2**53,
    True,
    False,
    None,
    1.0,
    1.5,
    [],
    ["a"],
    [1, True],
    {},
    {"a": 1},
]


def records_of(name: str) -> Iterator[Found]:
    """Read a vector."""
    for line in (VECTORS / name).read_bytes().split(b"\n"):
        yield from records_of_line(line + b"\n", SourcePlace(name, 1))


def is_found_sound(one: Found) -> bool:
    """Tell whether the long way finds nothing wrong with a record; what it knows is what the short way says."""
    body, faults = read_body(one.body or "")
    if body is None or faults or (one.index is not None and list(index_faults(body, one.index))):
        return False
    return bool(body.stream_id and body.number and body.record_id)


def assert_agrees(one: Found) -> bool:
    """Assert that a record which the short way lets pass is sound, and understood alike; tell whether it did."""
    proof = prove(one.body or "")
    if proof is None or (one.index is not None and not proof.agrees_with(one.index)):
        return False
    assert is_found_sound(one)
    body, _ = read_body(one.body or "")
    assert body is not None
    attributes = body.attributes
    assert (proof.digest, proof.hash) == (body.digest, body.digest.hex())
    assert (proof.stream_id, proof.number, proof.record_id) == (body.stream_id, body.number, body.record_id)
    assert proof.prev_hash == attributes.get(names.AUDIT_SEQUENCE_PREV_HASH)
    assert proof.prev_record_id == attributes.get(names.AUDIT_SEQUENCE_PREV_RECORD_ID)
    assert proof.event_name == body.members.get(EVENT_NAME)
    assert proof.observed_ns == nanoseconds(body.members.get(OBSERVED_TIMESTAMP))
    return True


@pytest.mark.parametrize("name", EXPECTED)
def test_the_short_way_is_taken_for_all_sound_records_but_checkpoints(name: str) -> None:
    """Nearly all records of an archive take the short way, and none that the long way finds anything wrong with."""
    for one in records_of(name):
        is_short = assert_agrees(one)
        assert is_short == (is_found_sound(one) and '"event_name":"audit.checkpoint"' not in (one.body or ""))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values within a value."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from paths(member, (*path, key))


def put(value: Any, path: tuple[Any, ...], other: Any) -> None:
    """Put another value at a path; None removes it."""
    *before, last = path
    other = copy.deepcopy(other)
    for key in before:
        value = value[key]
    if other is None:
        del value[last]
    else:
        value[last] = other


def sealed(**further: Any) -> Sealed:
    """Return a record that says much."""
    ledger = Ledger()
    more: dict[str, Any] = {
        "auditrace.reason": "ünïcode 😀",
        "auditrace.changes": {"a": {"from": 1, "to": "x"}, "é": {"to": {"deep": [True, -5, "y"]}}},
        "auditrace.target.version": 3,
        **further,
    }
    record = ledger.append(1, **more)
    record.body["attributes"] = dict(sorted(copy.deepcopy(record.attributes).items()))
    return record


def test_no_change_of_a_body_slips_through() -> None:
    """Whatever is put in the place of any value of a body, the short way lets pass only what is sound."""
    further = {"auditrace.truncated": ["auditrace.reason"]}
    for path, value in itertools.product([path for path in paths(sealed(**further).body) if path], VALUES):
        body = sealed(**further).body
        put(body, path, value)
        try:
            text = canonical_bytes(body).decode()
        except CanonicalFormError:
            text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert_agrees(Found(text, None, SourcePlace("a", 1)))


def test_what_no_single_change_shows_does_not_slip_through_either() -> None:
    """An empty record id under both its names, and a digit moved from one id to the other, are not sound."""
    unnamed, moved = sealed(), sealed()
    assert assert_agrees(Found(sealed().text, None, SourcePlace("a", 1)))
    unnamed.attributes["audit.record.id"] = unnamed.attributes["log.record.uid"] = ""
    moved.body["trace_id"], moved.body["span_id"] = "1" * 31, "1" * 17
    for record in (unnamed, moved):
        assert not assert_agrees(Found(record.text, None, SourcePlace("a", 1)))


def test_names_beyond_the_basic_plane_are_in_the_order_of_utf_16() -> None:
    """Where the order of code points is not that of RFC 8785, the short way is not taken for the wrong one."""
    body = sealed().body
    body["attributes"]["auditrace.changes"] = {"\U0001f600": {"to": 1}, "\uff5e": {"to": 2}}
    canonical = canonical_bytes(body).decode()
    other = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert other != canonical
    assert is_found_sound(Found(canonical, None, SourcePlace("a", 1)))
    for text in (canonical, other):
        assert_agrees(Found(text, None, SourcePlace("a", 1)))


def test_no_change_of_an_index_slips_through() -> None:
    """Whatever is changed in a log record beside its body, the short way lets pass only what agrees with it."""
    others = [*VALUES, {"stringValue": "1"}, {"intValue": "1"}, {"boolValue": True}]
    places = [path for path in paths(sealed().log_record()) if path and path[0] != "body"]
    for path, value in itertools.product(places, others):
        log_record = sealed().log_record()
        put(log_record, path, value)
        for one in records_of_line(
            line_of(log_record, sealed().body["resource"]).encode() + b"\n", SourcePlace("a", 1)
        ):
            if not one.torn:
                assert_agrees(one)


def test_no_change_of_a_resource_slips_through() -> None:
    """Whatever is changed in the resource of a log record, the short way lets pass only what agrees with the body."""
    for key, text in itertools.product(sealed().body["resource"], TEXTS):
        line = line_of(sealed().log_record(), {**sealed().body["resource"], key: text})
        for one in records_of_line(line.encode() + b"\n", SourcePlace("a", 1)):
            assert_agrees(one)


def shaped(more: dict[str, Any]) -> Sealed:
    """Return a record with further attributes, in canonical order, as the service sends them."""
    record = Ledger().append(1, **more)
    record.body["attributes"] = dict(sorted(record.attributes.items()))
    return record


def index_of(record: Sealed, change: Callable[[dict[str, Any]], object]) -> Found:
    """Return a record whose index says something else."""
    log_record = record.log_record()
    changed = {
        pair["key"]: pair["value"]["stringValue"] for pair in log_record["attributes"] if "stringValue" in pair["value"]
    }
    change(changed)
    kept = [pair for pair in log_record["attributes"] if "stringValue" not in pair["value"] or pair["key"] in changed]
    for pair in kept:
        if "stringValue" in pair["value"]:
            pair["value"]["stringValue"] = changed.pop(pair["key"])
    hash_pair = kept.pop()
    kept.extend({"key": key, "value": {"stringValue": value}} for key, value in changed.items())
    log_record["attributes"] = [*sorted(kept, key=lambda pair: pair["key"]), hash_pair]
    line = line_of(log_record, record.body["resource"])
    (found,) = records_of_line(line.encode() + b"\n", SourcePlace("a", 1))
    return found


def test_an_index_is_compared_as_a_text_where_it_can_be() -> None:
    """What collectors write is known by its text, without being decoded, whatever attributes the record has."""
    changes = {"é": {"to": "ü"}, "a": {"from": {"deep": [1, True]}}}
    kinds = ({}, {"auditrace.target.version": 7}, {"error.type": "x"}, {"auditrace.changes": changes})
    for more in kinds:
        record = shaped({"auditrace.job.run": 3, **more})
        one = index_of(record, lambda _: None)
        assert one.index is not None
        assert isinstance(one.index.attributes, EncodedFields)
        proof = prove(record.text)
        assert proof is not None
        assert proof.agrees_with(one.index)
        assert not one.index.attributes.is_decoded


def test_records_of_other_services_take_the_short_way_as_well() -> None:
    """An event that is not of the catalogue is as sound as any, and is compared as a text."""
    record = shaped({})
    record.body["event_name"] = "invoice.paid"
    one, proof = index_of(record, lambda _: None), prove(record.text)
    assert one.index is not None
    assert isinstance(one.index.attributes, EncodedFields)
    assert proof is not None
    assert proof.agrees_with(one.index)
    assert not one.index.attributes.is_decoded


def test_a_list_is_not_the_text_that_a_program_prints_of_it() -> None:
    """An index that has a text in the place of an array differs, also if the text looks like the array."""
    record = shaped({"auditrace.truncated": ["auditrace.reason"]})
    log_record = record.log_record()
    (pair,) = (pair for pair in log_record["attributes"] if pair["key"] == "auditrace.truncated")
    pair["value"] = {"stringValue": "['auditrace.reason']"}
    (one,) = records_of_line(line_of(log_record, record.body["resource"]).encode() + b"\n", SourcePlace("a", 1))

    assert not is_found_sound(one)
    assert not assert_agrees(one)


def test_an_index_cannot_trade_an_attribute_for_another_of_the_same_length() -> None:
    """An attribute that the body does not have is found also if another one is missing that was as long."""
    assert_agrees(index_of(shaped({"error.type": "UNSET"}), lambda _: None))
    # As long as `"error.type":"UNSET"`, which is how a missing value could look.
    record = shaped({"url.path": "/1/jobs"})

    def trade(index: dict[str, Any]) -> None:
        del index["url.path"]
        index["error.type"] = "UNSET"

    assert assert_agrees(index_of(record, lambda _: None))
    assert not assert_agrees(index_of(record, trade))


def test_a_value_cannot_pass_for_further_attributes() -> None:
    """A value that holds the text of another attribute is not that attribute, and has to be escaped."""
    text = 'x"}},{"key":"error.type","value":{"stringValue":"y'
    record = shaped({"auditrace.reason": text})
    assert assert_agrees(index_of(record, lambda _: None))
    line = record.line().replace(json.dumps(text)[1:-1], text)
    for one in records_of_line(line.encode() + b"\n", SourcePlace("a", 1)):
        assert not assert_agrees(one)


def test_attributes_in_another_order_agree() -> None:
    """Where the texts differ, what they say is compared."""
    record = shaped({})
    log_record = record.log_record()
    log_record["attributes"].reverse()
    line = line_of(log_record, record.body["resource"]).encode() + b"\n"
    (reversed_one,) = records_of_line(line, SourcePlace("a", 1))
    assert assert_agrees(reversed_one)
