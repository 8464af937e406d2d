"""Parses times. API, page and command line accept the same texts and give the same errors."""

import re
from datetime import datetime, timedelta
from typing import Final

from service.units import parse_duration_ms

_MINUTE_NS: Final = 60 * 1_000_000_000
_END_NS: Final = 2**63
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# Source: RFC 3339, 5.6, with at most nine digits for the fraction of a second.
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FORMS: Final = "write 2026-11-30 (UTC), 2026-11-30T08:00:00Z, or -2h (two hours ago)"


def parse_time_ns(text: str, now_ns: int) -> int:
    """Return a time as nanoseconds since 1970.

    A day means its midnight UTC. `-` and a duration is counted back from the beginning of the present minute, so that a
    repeated request within the minute gets the same time.

    Args:
        text: a day, a time with its offset (RFC 3339), or `-` and a duration.
        now_ns: the present time.

    Raises:
        ValueError: the text is not a time; the error says what to write.

    Example:
        >>> parse_time_ns("1970-01-02", 0), parse_time_ns("1970-01-01T01:00:00.5+01:00", 0)
        (86400000000000, 500000000)
        >>> parse_time_ns("-2h", 7_265_000_000_000)
        60000000000
    """
    shown = repr(text if len(text) <= 64 else f"{text[:64]}…")
    try:
        found_ns = _time_ns(text, now_ns)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{shown} is not a time: {_FORMS}") from error
    if not 0 <= found_ns < _END_NS:
        raise ValueError(f"{shown} is not between the years 1970 and 2262")
    return found_ns


def parse_end_ns(text: str, now_ns: int) -> int:
    """Return a future time as nanoseconds since 1970: a day, a time with its offset, or a duration from now (`90d`).

    Raises:
        ValueError: the text is not a time, or the time has passed; the error says what to write.

    Example:
        >>> parse_end_ns("2h", 0), parse_end_ns("1970-01-02", 0)
        (7200000000000, 86400000000000)
    """
    try:
        found_ns = now_ns + parse_duration_ms(text) * 1_000_000
    except ValueError:
        found_ns = parse_time_ns(text, now_ns)
    if found_ns >= _END_NS:
        raise ValueError(f"{text!r} is not before the year 2262")
    if found_ns <= now_ns:
        raise ValueError(f"{text!r} is not a time to come")
    return found_ns


def require_order(since_ns: int | None, until_ns: int | None, since: str = "since", until: str = "until") -> None:
    """Require that `since_ns` is before `until_ns`, if both are given; `since` and `until` name them in the error.

    Raises:
        ValueError: it is not before.
    """
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise ValueError(f"{since} must be before {until}")


def _time_ns(text: str, now_ns: int) -> int:
    if text.startswith("-"):
        return now_ns // _MINUTE_NS * _MINUTE_NS - parse_duration_ms(text[1:]) * 1_000_000
    if _DAY.fullmatch(text):
        text = f"{text}T00:00:00Z"
    moment = _MOMENT.fullmatch(text)
    if moment is None:
        raise ValueError(text)
    day, clock, fraction, zone = moment.groups()
    parsed = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    seconds = (parsed - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
