"""Parses durations and sizes. Settings and templates accept the same texts."""

import re
from typing import Final

_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]{1,9})(KiB|MiB|GiB)")
_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_duration_ms(text: str) -> int:
    """Return a duration in milliseconds; zero is allowed.

    Raises:
        ValueError: the text is not a duration; the error says what to write.

    Example:
        >>> parse_duration_ms("250ms"), parse_duration_ms("5m")
        (250, 300000)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration: write a whole number and ms, s, m, h or d (250ms, 30s, 5m, 2h, 400d)"
        )
    return int(match[1]) * _MS[match[2]]


def shown_size(size_bytes: int) -> str:
    """Return a size as text, in the largest unit that it reaches, rounded down to a tenth.

    Example:
        >>> shown_size(68_607_541_248), shown_size(64 * 2**20), shown_size(500)
        ('63.8 GiB', '64.0 MiB', '0.4 KiB')
    """
    unit = next((unit for unit in ("GiB", "MiB") if size_bytes >= _BYTES[unit]), "KiB")
    tenths = size_bytes * 10 // _BYTES[unit]
    return f"{tenths // 10}.{tenths % 10} {unit}"


def parse_size_bytes(text: str) -> int:
    """Return a size in bytes; zero is allowed.

    Raises:
        ValueError: the text is not a size; the error says what to write.

    Example:
        >>> parse_size_bytes("64KiB")
        65536
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a whole number and KiB, MiB or GiB (64KiB, 8MiB, 1GiB)")
    return int(match[1]) * _BYTES[match[2]]
