"""A request is never so large that the line of it in an archive is longer than the collector's reader takes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.audit.canonical import Value, canonical_bytes
from telemetry.audit.otlp import log_record_bytes, otlp_json, resource_bytes, scope_bytes
from telemetry.audit.record import SpanRef
from telemetry.audit.request import export_request, in_lines


class _Stored(NamedTuple):
    resource: bytes
    scope: bytes
    log_record: bytes


LONG = "k" * 40
"""Its length is no byte that would count as one of those that an escape is made of."""

_TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.text('"\\\x00\x1f\n<>&\u2028', max_size=40)
_KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_PLAIN = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT
_CHANGES = st.dictionaries(_KEYS, st.dictionaries(st.sampled_from(["from", "to"]), _PLAIN, min_size=1), min_size=1)
_VALUES: st.SearchStrategy[Value] = st.one_of(
    _PLAIN,
    st.lists(_PLAIN, min_size=1, max_size=5),
    _CHANGES,
    st.lists(st.dictionaries(_KEYS, _PLAIN, min_size=1, max_size=4), min_size=1, max_size=3),
)
_ATTRIBUTES = st.dictionaries(_KEYS, _VALUES, max_size=8)


_RESOURCES = st.sampled_from([{}, {"service.name": "a"}, {"service.name": "b\x01" * 20}])


def _record(
    attributes: Mapping[str, Value], event_name: str = "job.create", resource: Mapping[str, Value] = {}
) -> _Stored:
    return _Stored(
        resource_bytes(resource),
        scope_bytes("auditrace.audit", "1.0.0"),
        log_record_bytes(
            event_name=event_name,
            timestamp_ns=2**63 - 1,
            observed_ns=2**63 - 1,
            severity=17,
            span=SpanRef("f" * 32, "f" * 16, 1),
            body=canonical_bytes({"attributes": attributes}).decode(),
            attributes=attributes,
        ),
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(_record, _ATTRIBUTES, _TEXT, _RESOURCES), min_size=2, max_size=5))
def test_what_would_make_too_long_a_line_is_parted(records: Sequence[_Stored]) -> None:
    """Whatever is in the records, escapes and structures included; none is left out, and their order stays."""
    too_long = _line(records)
    parts = in_lines(records, too_long - 1)
    assert len(parts) > 1
    assert [record for part in parts for record in part] == records
    assert all(len(part) == 1 or _line(part) < too_long for part in parts)


@pytest.mark.parametrize(
    "value",
    [
        "",
        LONG,
        True,
        1,
        2**53 - 1,
        [LONG],
        [1],
        [True, False],
        {LONG: LONG},
        {LONG: {"from": 1}},
        [{LONG: 1}],
        "\x00" * 40,
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_structures_that_grow_most_are_counted(value: Value) -> None:
    """Hundreds of attributes, of which JSON shows much more than protobuf does."""
    record = _record({f"{LONG}{number}": value for number in range(300)})
    assert len(in_lines([record, record], _line([record, record]) - 1)) == 2


def test_lines_are_not_much_shorter_than_they_may_be() -> None:
    """A request of usual records is at least half of what it may be: each costs the sink some waits for its disk."""
    record = _record({f"auditrace.attribute.{number}": f"value {number}" for number in range(25)})
    first, *_ = in_lines([record] * 2000)
    assert 1 << 19 < _line(first) < 1 << 20


def _line(records: Sequence[_Stored]) -> int:
    return len(otlp_json(export_request(records)) + b"\n")
