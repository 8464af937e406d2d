"""How long to wait between two attempts."""

from collections.abc import Callable
from typing import Final

LONGEST_PAUSE_S: Final = 10.0
SHORTEST_PAUSE_S: Final = 0.1
_DOUBLINGS: Final = 7


def pause_s(failures: int, retry_after_s: float | None, random: Callable[[], float]) -> float:
    """Return the pause after the `failures`-th failure in a row: doubling, jittered, never above ten seconds.

    A longer pause that the sink asks for by `Retry-After` is kept, up to that limit.

    Args:
        failures: from 1.
        retry_after_s: None when the sink asks for nothing.
        random: returns a number from 0 up to 1.
    """
    ceiling = min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S * (1 << min(failures - 1, _DOUBLINGS)))
    return min(LONGEST_PAUSE_S, max(ceiling * (0.5 + random() / 2), retry_after_s or 0.0))
