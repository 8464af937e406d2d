"""How long a process counts as alive after it last renewed its lease."""

from typing import Final

LEASE_S: Final = 10
LEASE_NS: Final = LEASE_S * 1_000_000_000
RENEW_S: Final = 2.0


def is_leased(until_ns: int, now_ns: int) -> bool:
    """Tell whether a lease is valid: it has not ended, and was not taken before the clock stepped back."""
    return now_ns <= until_ns <= now_ns + 2 * LEASE_NS
