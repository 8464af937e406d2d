"""How long a command tries on with a sink or a database that fails: until there was no progress for some time."""

from collections.abc import Callable


class StallTimeout:
    """Ends when there was no progress for a number of seconds, or as soon as a stop is asked for."""

    def __init__(self, timeout_s: float, monotonic: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """Begin now.

        Args:
            timeout_s: how long there may be no progress.
            monotonic: seconds.
            wait: waits for so many seconds, or until a stop is asked for; True when it is.
        """
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._wait = wait
        self._since = monotonic()

    @property
    def is_stopped(self) -> bool:
        """True once a stop is asked for."""
        return self._wait(0.0)

    def progressed(self) -> None:
        """Say that something was delivered: the time begins anew."""
        self._since = self._monotonic()

    def left_s(self) -> float:
        """Return how many seconds are left; 0 or less when it has ended."""
        return 0.0 if self.is_stopped else self._since + self._timeout_s - self._monotonic()

    def pause(self, pause_s: float) -> bool:
        """Wait before the next attempt, within what is left; False when it has ended."""
        left_s = self.left_s()
        return left_s > 0 and not self._wait(min(left_s, pause_s))
