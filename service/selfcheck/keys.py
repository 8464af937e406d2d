"""Checks all API keys against the ledger, on schedule."""

import logging
from collections.abc import Callable

from service.loop import Loop
from service.outage import Outage

_log = logging.getLogger(__name__)


class KeyCheck:
    """A thread that checks all keys at its start, and then once in each interval."""

    def __init__(self, check_all: Callable[[], None], interval_s: float) -> None:
        self._check_all = check_all
        self._interval_s = interval_s
        self._outage = Outage(_log, "the API keys could not be checked, trying on", "the API keys are checked again")
        self._loop = Loop("keycheck", self._turn_and_rest)

    def start(self) -> None:
        """Start to check."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread."""
        self._loop.stop()

    @property
    def error(self) -> str | None:
        """The failure of the last check; None when it did not fail."""
        return self._outage.problem

    def _turn_and_rest(self) -> None:
        self._outage.attempt(self._check_all)
        self._loop.rest(self._interval_s)
