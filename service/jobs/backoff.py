"""Computes the pause between a failed attempt of a job and the next one."""

from collections.abc import Callable
from typing import Final

_FIRST_S: Final = 1.0
_DOUBLINGS: Final = 5
_LONGEST_S: Final = 30.0


def retry_delay_s(attempt: int, random: Callable[[], float]) -> float:
    """Return the pause in seconds after the `attempt`-th failure: 1 s, doubling up to 30 s, less a random part.

    The random part is at most half. It spreads the next attempts of jobs that failed at the same time.

    Args:
        attempt: the number of the attempt that failed, from 1.
        random: returns numbers from 0 up to, not including, 1.
    """
    doublings = min(max(attempt, 1) - 1, _DOUBLINGS)
    full_s = min(_LONGEST_S, _FIRST_S * (1 << doublings))
    return full_s * (1.0 - random() / 2)
