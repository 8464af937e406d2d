"""Times as people write them on a command line."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_ns(text: str) -> int:
    """Return a time as nanoseconds since 1970; without an offset it is UTC.

    Raises:
        ValueError: saying what was found and what to write.

    Example:
        >>> parse_time_ns("1970-01-01T00:00:01Z"), parse_time_ns("1970-01-02")
        (1000000000, 86400000000000)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: write 2026-01-02T03:04:05Z, or 2026-01-02") from error
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1_000
