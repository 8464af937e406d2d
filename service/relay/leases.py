"""Keeps a relay's leases while it works, in a thread of its own, because an answer of the sink may take long."""

import logging
from collections.abc import Callable

from service.errors import AuditraceError
from service.loop import Loop
from service.ports import Outbox

_log = logging.getLogger(__name__)


class Leases:
    """The leases of one relay. A failure is logged once; the relay logs when the database is there again."""

    def __init__(self, outbox: Outbox, renew_s: float) -> None:
        self._outbox = outbox
        self._renew_s = renew_s
        self._is_failing = False
        self._loop = Loop("relay-lease", self._renew)

    def start(self) -> None:
        """Renew them from now on."""
        self._loop.start()

    def stop(self, timeout_s: float) -> None:
        """Stop renewing them; those that were not given back end by themselves."""
        self._loop.stop(timeout_s)

    def release(self) -> None:
        """Give all of them back, so that another relay need not wait for them to end."""
        self._try(self._outbox.release, "given back, they end by themselves")

    def _renew(self) -> None:
        if not self._loop.rest(self._renew_s):
            self._try(self._outbox.renew, "renewed")

    def _try(self, act: Callable[[], None], what: str) -> None:
        try:
            act()
        except AuditraceError as error:
            # After the stop the database is closed, while a step may still be under way.
            if not self._is_failing and not self._loop.is_stopping:
                _log.warning("the leases could not be %s: %s", what, error)
            self._is_failing = True
        else:
            self._is_failing = False
