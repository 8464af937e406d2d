"""Record and job ids: UUIDv7, which sort by time and are unique across processes."""

from collections.abc import Callable
from uuid import UUID


def uuid7(time_ns: int, random_bits: int) -> str:
    """Return the UUIDv7 of a time and 74 random bits.

    Source: RFC 9562, section 5.7.

    Example:
        >>> uuid7(1_645_557_742_000_000_000, 0xCC3 << 62 | 0x18C4DC0C0C07398F)
        '017f22e2-79b0-7cc3-98c4-dc0c0c07398f'
    """
    milliseconds = time_ns // 1_000_000 & (1 << 48) - 1
    random_a, random_b = random_bits >> 62 & 0xFFF, random_bits & (1 << 62) - 1
    return str(UUID(int=milliseconds << 80 | 7 << 76 | random_a << 64 | 2 << 62 | random_b))


def new_id_from(clock: Callable[[], int], random_bits: Callable[[int], int]) -> Callable[[], str]:
    """Return a function that makes UUIDv7s from this clock and this source of random bits."""
    return lambda: uuid7(clock(), random_bits(74))
