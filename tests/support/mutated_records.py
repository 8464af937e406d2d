"""Makes records that were tampered with: a sound record, one change of a wide catalogue, now and then a second one.

One seed and number always make the same record. Many changes are those of a forger who knows the format: the hash and
the index of the log record follow the changed body.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Final, NamedTuple

import msgspec
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from telemetry.audit.verify.read.found import Found
from telemetry.audit.verify.read.otlp_stored import found_in_row
from tests.support.ledger_maker import FOREIGN_KEY, Ledger
from tests.support.mutated_texts import TEXT_CHANGES
from tests.support.mutated_values import VALUE_CHANGES, ValueChange, forged, retyped
from tests.support.record_carriers import (
    PLACE,
    Draft,
    carried,
    dumped,
    encoded,
    flipped,
    line_in,
    read,
    read_bytes,
    row_of,
)

_SECOND: Final = 0.25
"""How often a record is changed in two ways."""
_FOLLOWED: Final = 0.8
"""How often hash and index follow a changed text."""
_FIELD: Final = 0.3
"""How often a field of the log record is changed that is no attribute."""
_OFTEN: Final = 8
"""How often the changes are drawn that know the format; the others, once."""
_FIELDS: Final = [
    *("time_unix_nano", "observed_time_unix_nano", "severity_number", "event_name", "flags", "trace_id", "span_id"),
]


class Mutated(NamedTuple):
    """A changed record: how it was changed, and what a reader makes of it, which may be no record or several."""

    kind: str
    found: Sequence[Found]


class _Kind(NamedTuple):
    """One way to change a record; one that `is_last` changes what carries the record, and returns what is read then."""

    name: str
    change: Callable[[Random, Draft], Sequence[Found] | None]
    is_last: bool = False


def mutated(seed: int, number: int) -> Mutated:
    """Return the mutated record of a number, from 0."""
    draw = Random(seed << 40 | number)
    kinds = [draw.choice(_KINDS)]
    if draw.random() < _SECOND and not (second := draw.choice(_KINDS)).is_last:
        kinds.insert(0, second)
    draft = Draft(draw.choice(_bases()))
    found: Sequence[Found] | None = None
    for kind in kinds:
        found = kind.change(draw, draft)
    return Mutated(kinds[-1].name, carried(draw, draft) if found is None else found)


@cache
def _bases() -> Sequence[bytes]:
    """Return sound records of all kinds, as log records in JSON."""
    ledger = Ledger()
    ledger.append(1)
    ledger.append(2, **{"error.type": "x", "audit.outcome": "failure", "auditrace.result": "error"})
    ledger.append(1, **{"auditrace.reason": 'ünïcode 😀 "quoted"\n\x00', "auditrace.target.version": 3})
    changes = {"é": {"to": {"deep": [True, -5, "y"], "a": "\n"}}, "a": {"from": 1, "to": ["x", 2**53 - 1]}}
    ledger.append(1, **{"auditrace.changes": changes, "http.response.status_code": 201})
    ledger.append(2, **{"auditrace.truncated": ["auditrace.reason", "url.path"], "auditrace.reason": "cut"})
    ledger.append(2, **{"url.path": 'x"}},{"key":"error.type","value":{"stringValue":"y', "auditrace.changes": {}})
    ledger.append(1, **{"auditrace.changes": {"\uff5e": {"to": 1}, "\U0001f600": {"to": 2}}})
    ledger.append(1, **{"own.attribute": [1, "a", True], "own.number": -7})
    for outcome, result in (("success", "noop"), ("failure", "denied"), ("unknown", "unknown")):
        ledger.append(1, **{"audit.outcome": outcome, "auditrace.result": result, "auditrace.job.run": 1})
    ledger.append(1, **{"auditrace.truncated": ["auditrace.reason"], "http.response.status_code": 413})
    ledger.append(2, **{"auditrace.reason": 'he said "no"', "url.path": "/", "auditrace.job.run": 2})
    for record in ledger.records[-3:]:
        del record.attributes["auditrace.changes"]
    ledger.append(1).body["event_name"] = "invoice.paid"
    ledger.checkpoint(1)
    ledger.rotate(1, FOREIGN_KEY)
    ledger.append(2, "audit.stream.close")
    for record in ledger.records:
        # As the service sends them.
        record.body["attributes"] = dict(sorted(record.attributes.items()))
    return [msgspec.json.encode(record.log_record()) for record in ledger.records]


def _of_body(name: str, of_value: ValueChange) -> _Kind:
    def change(draw: Random, draft: Draft) -> None:
        of_value(draw, draft.body)
        draft.say(encoded(draw, draft.body))

    return _Kind(f"body: {name}", change)


def _of_text(name: str) -> _Kind:
    def change(draw: Random, draft: Draft) -> None:
        text = TEXT_CHANGES[name](draw, draft.text)
        if draw.random() < _FOLLOWED:
            draft.say(text)
        else:
            draft.text = text
            draft.log_record["body"] = {"stringValue": text}

    return _Kind(f"text of the body: {name}", change)


def _of_index(name: str, of_value: ValueChange) -> _Kind:
    def change(draw: Random, draft: Draft) -> None:
        index = {key: value for key, value in draft.log_record.items() if key != "body"}
        # Attributes are most of what it says, the other fields count one by one.
        others = {key: value for key, value in index.items() if key != "attributes"}
        changed = others if draw.random() < _FIELD else index
        of_value(draw, changed)
        draft.log_record = {**index, **changed, "body": draft.log_record["body"]}

    return _Kind(f"index: {name}", change)


def _of_resource(name: str, of_value: ValueChange) -> _Kind:
    def change(draw: Random, draft: Draft) -> None:
        if draft.resource:
            of_value(draw, draft.resource)

    return _Kind(f"resource: {name}", change)


def _of_index_text(name: str) -> _Kind:
    def change(draw: Random, draft: Draft) -> Sequence[Found] | None:
        try:
            attributes = TEXT_CHANGES[name](draw, dumped(draw, draft.log_record.get("attributes")))
        except RecursionError:
            # Python writes less deep JSON than it reads.
            return None
        return read(line_in(draw, draft, "@@").replace('"@@"', attributes))

    return _Kind(f"text of the index: {name}", change, is_last=True)


def _of_line(name: str) -> _Kind:
    def change(draw: Random, draft: Draft) -> Sequence[Found]:
        return read(TEXT_CHANGES[name](draw, line_in(draw, draft)))

    return _Kind(f"line: {name}", change, is_last=True)


def _bytes_of_line(draw: Random, draft: Draft) -> Sequence[Found]:
    return read_bytes(flipped(draw, line_in(draw, draft).encode(errors="surrogatepass")))


def _bytes_of_row(draw: Random, draft: Draft) -> Sequence[Found] | None:
    row = row_of(draft)
    return None if row is None else found_in_row(row.shown, flipped(draw, row.otlp), row.resource, PLACE)


def _message_of_row(draw: Random, draft: Draft) -> Sequence[Found] | None:
    """Clear a field of the stored message, take it from another record, or change its attributes."""
    row, other = row_of(draft), row_of(Draft(draw.choice(_bases())))
    if row is None or other is None:
        return None
    record, source = LogRecord.FromString(row.otlp), LogRecord.FromString(other.otlp)
    attributes = record.attributes
    for _ in range(draw.randint(1, 2)):
        match draw.randrange(4):
            case 0:
                record.ClearField(draw.choice(_FIELDS))
            case 1:
                name = draw.choice(_FIELDS)
                setattr(record, name, getattr(source, name))
            case 2 if attributes:
                del attributes[draw.randrange(len(attributes))]
            case _:
                one = draw.choice(source.attributes)
                (draw.choice(attributes) if attributes and draw.random() < 0.7 else attributes.add()).CopyFrom(one)
    return found_in_row(row.shown, record.SerializeToString(), row.resource, PLACE)


_KINDS: Final = [
    *itertools.starmap(_of_body, VALUE_CHANGES.items()),
    *[_of_body("a value forged", forged)] * _OFTEN,
    *map(_of_text, TEXT_CHANGES),
    *itertools.starmap(_of_index, VALUE_CHANGES.items()),
    *[_of_index("a value of another type", retyped)] * _OFTEN,
    *itertools.starmap(_of_resource, VALUE_CHANGES.items()),
    *map(_of_index_text, TEXT_CHANGES),
    *map(_of_line, TEXT_CHANGES),
    _Kind("line: bytes changed", _bytes_of_line, is_last=True),
    _Kind("stored row: bytes changed", _bytes_of_row, is_last=True),
    _Kind("stored row: fields changed", _message_of_row, is_last=True),
]
