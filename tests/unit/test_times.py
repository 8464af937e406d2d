"""Times as people and programs write them: exact, or refused with what to write."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api.texts import is_plain
from service.times import parse_time_ns, require_order
from telemetry.audit.chain import rfc3339_nanos

NOW_NS: Final = 1_796_032_923_456_789_012
"""2026-11-30T10:02:03.456789012Z."""


@given(st.integers(0, 2**63 - 1))
def test_a_time_reads_back_to_the_nanosecond(nanoseconds: int) -> None:
    """The form in which records show times is understood, whole, over the whole range."""
    assert parse_time_ns(rfc3339_nanos(nanoseconds), 0) == nanoseconds


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2261, 1, 1)),  # noqa: DTZ001 - the zone comes from the offset
    st.integers(-23 * 60, 23 * 60),
    st.integers(0, 9),
)
def test_a_time_means_the_same_in_every_zone(local: datetime, offset: int, digits: int) -> None:
    """Offsets are counted, and fractions of one to nine digits are exact."""
    sign, minutes = ("-" if offset < 0 else "+"), abs(offset)
    fraction = f".{'5' * digits}" if digits else ""
    text = f"{local:%Y-%m-%dT%H:%M:%S}{fraction}{sign}{minutes // 60:02}:{minutes % 60:02}"
    moment = local.replace(microsecond=0, tzinfo=UTC) - timedelta(minutes=offset)
    expected = int(moment.timestamp()) * 10**9 + int(("5" * digits).ljust(9, "0"))
    assert parse_time_ns(text, 0) == expected


@given(st.text(st.characters()))
@example("2026-11-30T10:02:03 01:00")
@example("-" * 1000)
def test_what_is_no_time_is_refused_in_a_sentence(text: str) -> None:
    """Any text is either a time or refused as one, with nothing of it that could do harm in the answer."""
    refusal = ""
    try:
        assert 0 <= parse_time_ns(text, NOW_NS) < 2**63
    except ValueError as error:
        refusal = str(error)
    assert is_plain(refusal)
    assert len(refusal) < 1000
    assert refusal == "" or "write 2026-11-30" in refusal or "1970" in refusal


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2026-11-30", "2026-11-30T00:00:00.000000000Z"),
        ("2026-11-30T08:00:00Z", "2026-11-30T08:00:00.000000000Z"),
        ("2026-11-30t08:00:00.123456789z", "2026-11-30T08:00:00.123456789Z"),
        ("2026-11-30 08:00:00+01:30", "2026-11-30T06:30:00.000000000Z"),
        ("-2h", "2026-11-30T08:02:00.000000000Z"),
        ("-90s", "2026-11-30T10:00:30.000000000Z"),
        ("-0s", "2026-11-30T10:02:00.000000000Z"),
        ("-400d", "2025-10-26T10:02:00.000000000Z"),
    ],
)
def test_a_time_is_a_day_a_moment_or_a_duration_ago(text: str, means: str) -> None:
    """A day begins at midnight UTC; a duration counts back from the beginning of the minute, the same for a minute."""
    assert rfc3339_nanos(parse_time_ns(text, NOW_NS)) == means
    assert parse_time_ns(text, NOW_NS) == parse_time_ns(text, NOW_NS + 56_000_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-02T03:04:05",
        "2026-13-01",
        "2026-02-30T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04Z",
        "20260102",
        "2026-W01-1",
        "٢٠٢٦-01-01",
        "2h",
        "+2h",
        "--2h",
        "-2",
        "-2h ",
        "-2.5h",
        "-2H",
    ],
)
def test_half_a_time_is_none(text: str) -> None:
    """Without an offset, with a month 13, digits of another script, or a sign that means nothing, there is no time."""
    with pytest.raises(ValueError, match=r"is not a time: write 2026-11-30 \(UTC\), 2026-11-30T08:00:00Z, or -2h"):
        parse_time_ns(text, NOW_NS)


@pytest.mark.parametrize("text", ["1969-12-31", "-999999999d", "9999-12-31", "2262-04-12"])
def test_a_time_that_no_record_can_have_is_refused(text: str) -> None:
    """Records hold nanoseconds of 63 bits since 1970."""
    with pytest.raises(ValueError, match="is not between the years 1970 and 2262"):
        parse_time_ns(text, NOW_NS)


def test_nothing_lies_between_an_end_and_a_later_beginning() -> None:
    """An empty span of time is a mistake, and is told as one."""
    require_order(1, 2)
    require_order(None, 2)
    require_order(1, None)
    for since_ns, until_ns in ((2, 2), (2, 1)):
        with pytest.raises(ValueError, match="--since must be before --until"):
            require_order(since_ns, until_ns, "--since", "--until")
