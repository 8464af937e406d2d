"""Ids and clocks that tests control."""

import itertools
from collections.abc import Iterator


def record_ids(prefix: int = 1) -> Iterator[str]:
    """Return UUIDv7-shaped ids in order, the same in every run.

    Several threads may take ids at the same time; a generator would raise `ValueError`.
    """
    return map("019b76da-a800-7{:03x}-8000-{:012x}".format, itertools.repeat(prefix), itertools.count(1))


class ManualClock:
    """Nanoseconds since the epoch; moves by a microsecond a reading, and as far as a test says."""

    def __init__(self, start_ns: int = 1_767_323_045_000_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Step the clock, back if negative."""
        self.now_ns += int(seconds * 1e9)


class Seconds:
    """A monotonic clock that a test moves, and each wait by its length; `is_stopped` is what a wait answers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_stopped = False

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Move the clock instead of waiting."""
        self.now += seconds
        return self.is_stopped
