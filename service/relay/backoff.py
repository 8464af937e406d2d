"""How long to wait between two attempts."""

from collections.abc import Callable
from typing import Final, TypeAlias

LONGEST_PAUSE_S: Final = 10.0
SHORTEST_PAUSE_S: Final = 0.1
_DOUBLINGS: Final = 12

Pause: TypeAlias = Callable[[int, float | None], float]
"""Returns the pause in seconds after so many failures in a row; the second value is what `Retry-After` asks for."""


def pause_s(
    failures: int,
    retry_after_s: float | None,
    random: Callable[[], float],
    longest_s: float = LONGEST_PAUSE_S,
    longest_asked_s: float = LONGEST_PAUSE_S,
) -> float:
    """Return the pause after the `failures`-th failure in a row: doubling, jittered, never above `longest_s`.

    A longer pause that the receiver asks for by `Retry-After` is kept, up to `longest_asked_s`.

    Args:
        failures: from 1.
        retry_after_s: None when the receiver asks for nothing.
        random: returns a number from 0 up to 1.
        longest_s: the longest pause without a `Retry-After`.
        longest_asked_s: the longest pause with one.
    """
    ceiling = min(longest_s, SHORTEST_PAUSE_S * (1 << min(failures - 1, _DOUBLINGS)))
    return max(ceiling * (0.5 + random() / 2), min(longest_asked_s, retry_after_s or 0.0))
