"""Waiting in tests: for a condition, never for a duration."""

import threading
import time
from collections.abc import Callable


def poll_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Returns as soon as the condition holds.

    Args:
        condition: Asked about fifty times a second, and once more when the time is up.
        what: Completes "waited for …" in the failure.
        timeout_s: How long to go on asking.

    Raises:
        TimeoutError: The condition did not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        pause.wait(0.02)
