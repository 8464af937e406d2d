"""How long a command goes on with a sink or a database that fails: as long as something gets on in between."""

from collections.abc import Callable


class Patience:
    """Ends when nothing got on for a number of seconds, or as soon as a stop is asked for."""

    def __init__(self, patience_s: float, monotonic: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """Begin to wait.

        Args:
            patience_s: for how long nothing may get on.
            monotonic: seconds.
            wait: waits for so many seconds, or until a stop is asked for; True when it is.
        """
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._wait = wait
        self._since = monotonic()

    @property
    def is_stopped(self) -> bool:
        """True once a stop is asked for."""
        return self._wait(0.0)

    def gets_on(self) -> None:
        """Say that something was delivered: the time begins anew."""
        self._since = self._monotonic()

    def left_s(self) -> float:
        """Return how long it may go on; nothing or less when it ended."""
        return 0.0 if self.is_stopped else self._since + self._patience_s - self._monotonic()

    def pause(self, pause_s: float) -> bool:
        """Wait before the next attempt, within what is left; False when it ended."""
        left_s = self.left_s()
        return left_s > 0 and not self._wait(min(left_s, pause_s))
