"""The thread of a part of the process: it takes one turn after another until it is stopped."""

import threading
from collections.abc import Callable


class Loop:
    """One thread. All methods may be called from any thread; it is started and stopped once."""

    def __init__(self, name: str, turn: Callable[[], None], finish: Callable[[], bool] = lambda: True) -> None:
        """Prepare the thread.

        Args:
            name: of the thread.
            turn: does the work once, and then waits by `rest` or `wait_for_wake`; it raises nothing.
            finish: called before each turn once a stop was asked for; True ends the thread, and False takes a turn.
        """
        self._turn = turn
        self._finish = finish
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """True once a stop was asked for."""
        return self._stopping.is_set()

    @property
    def is_alive(self) -> bool:
        """True from the start of the thread to its end."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to take turns."""
        self._thread.start()

    def wake(self) -> None:
        """End `wait_for_wake`, or the next one if the loop does not wait now. Never blocks."""
        self._woken.set()

    def retire(self) -> None:
        """Ask for a stop. Never blocks."""
        self._stopping.set()
        self.wake()

    def stop(self, timeout_s: float | None = None) -> None:
        """Ask for a stop, and wait until the thread has ended or the time is over; None waits as long as it takes."""
        self.retire()
        if self.is_alive:
            self._thread.join(timeout_s)

    def rest(self, pause_s: float) -> bool:
        """Wait for so long, but not after a stop was asked for; True when it was. To be called by a turn."""
        return self._stopping.wait(pause_s)

    def wait_for_wake(self, pause_s: float) -> None:
        """Wait for so long, or until `wake` or a stop. To be called by a turn."""
        self._woken.wait(pause_s)
        self._woken.clear()

    def _serve(self) -> None:
        while not (self.is_stopping and self._finish()):
            self._turn()
