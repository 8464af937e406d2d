"""Durations and sizes read as written in the configuration reference, and nothing else reads."""

import pytest

from service.units import parse_duration_ms, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("400d", 34_560_000_000), ("0s", 0)],
)
def test_durations(text: str, milliseconds: int) -> None:
    """Every documented form of a duration is read in milliseconds."""
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(("text", "size"), [("64KiB", 65_536), ("8MiB", 8_388_608), ("1GiB", 2**30)])
def test_sizes(text: str, size: int) -> None:
    """Every documented form of a size is read in bytes."""
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "1.5s", "5S", "5sec", "5s\n", "٥s", "9999999999s", "s"])
def test_what_is_not_a_duration(text: str) -> None:
    """A text that only resembles a duration is refused with the list of what is allowed."""
    with pytest.raises(ValueError, match="write a whole number and ms, s, m, h or d"):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["", "8", "8M", "8MB", "8mib", "8 MiB", "-8MiB", "1.5MiB", "8MiB\n", "٨MiB"])
def test_what_is_not_a_size(text: str) -> None:
    """A text that only resembles a size is refused with the list of what is allowed."""
    with pytest.raises(ValueError, match="write a whole number and KiB, MiB or GiB"):
        parse_size_bytes(text)
