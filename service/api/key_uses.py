"""Stores the time at which each API key was used last; no answer waits for that."""

import logging
import threading
from concurrent.futures import Future

from service.errors import ShuttingDownError
from service.outage import Outage
from service.ports import Clock, Ledger, Transaction

_log = logging.getLogger(__name__)

_APART_NS = 60 * 1_000_000_000


class ApiKeyUses:
    """Stores the use of a key, at most once a minute for each key.

    The stored time is at most a minute before the last use; when the ledger refuses a write, that minute is left out.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._noted: dict[str, int] = {}
        self._lock = threading.Lock()
        self._outage = Outage(
            _log,
            "the last uses of API keys are not written down",
            "the last uses of API keys are written down again",
            logging.WARNING,
        )

    def note(self, key_id: str) -> None:
        """Note that the key is used now."""
        now_ns = self._clock()
        with self._lock:
            if abs(now_ns - self._noted.get(key_id, -_APART_NS)) < _APART_NS:
                return
            self._noted[key_id] = now_ns

        def write(transaction: Transaction) -> None:
            transaction.note_use(key_id, now_ns)

        self._ledger.submit(write).add_done_callback(self._written)

    def _written(self, future: Future[None]) -> None:
        error = future.exception()
        if not isinstance(error, ShuttingDownError):
            with self._lock:
                self._outage.note(None if error is None else str(error))
