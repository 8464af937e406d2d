"""Keeps a relay's leases while it works, in a thread of its own, because an answer of the sink may take long."""

import logging
import threading
from collections.abc import Callable

from service.errors import AuditraceError
from service.ports import Outbox

_log = logging.getLogger(__name__)


class Leases:
    """The leases of one relay. A database that is away is logged once, and its return is the relay's to log."""

    def __init__(self, outbox: Outbox, renew_s: float) -> None:
        self._outbox = outbox
        self._renew_s = renew_s
        self._ended = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._renew, name="relay-lease", daemon=True)

    def start(self) -> None:
        """Renew them from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Renew them no more; those that were not given back end by themselves."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def release(self) -> None:
        """Give all of them back, so that another relay need not wait for them to end."""
        self._try(self._outbox.release, "given back, they end by themselves")

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_s):
            self._try(self._outbox.renew, "renewed")

    def _try(self, act: Callable[[], None], what: str) -> None:
        try:
            act()
        except AuditraceError as error:
            # After the end the database is closed under a step that was still under way.
            if not self._is_failing and not self._ended.is_set():
                _log.warning("the leases could not be %s: %s", what, error)
            self._is_failing = True
        else:
            self._is_failing = False
