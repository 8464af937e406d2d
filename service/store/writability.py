"""Notices when changes cannot be committed although the ledger can be read, and when they can be again.

Every change that is handed in tells by its outcome. When none was committed for a while, or one failed, a trial tells:
it seals a record in a lane, with the rights and on the disk of any change, and undoes it before the commit.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from service.errors import BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, ShuttingDownError, TryLaterError
from service.ports import Ledger, Transaction, Transition, Work
from telemetry.audit.record import AuditRecord

T = TypeVar("T")

_log = logging.getLogger(__name__)

CERTAIN_S: Final = 10.0
"""So long after a commit nothing is tried."""

_AGAIN_S: Final = 1.0
_PATIENCE_S: Final = 5.0
_STUCK: Final = "they do not come to an end, as when no standby that must confirm is there"


class _UndoneError(Exception):
    """The trial went through, and leaves nothing behind."""


class WatchedLedger:
    """Implements `service.ports.Ledger` over another one, and says how the changes that went through it fared."""

    def __init__(self, ledger: Ledger, trial_record: Callable[[], AuditRecord], monotonic: Callable[[], float]) -> None:
        """Watch `ledger`; `trial_record` makes a record for a trial, which is never committed."""
        self._ledger = ledger
        self._trial_record = trial_record
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._certain_until = float("-inf")
        self._trial: Future[None] | None = None
        self._began = float("-inf")
        self._is_failing = False

    def submit(self, work: Work[T]) -> "Future[T]":
        """Hand work to the ledger."""
        future = self._ledger.submit(work)
        future.add_done_callback(self._note)
        return future

    def problem(self) -> str | None:
        """Return why changes cannot be committed, None while they can; waits for a trial, five seconds at most.

        The text names no host, port or path; the log has what the database said. However often this is asked, there is
        one trial at a time, and none within a second of the last one. A trial opens a stream in a lane that has none,
        as any change does, and leaves no other trace.
        """
        with self._lock:
            now = self._monotonic()
            if now < self._certain_until:
                return None
            trial = self._trial
            is_new = trial is None or (trial.done() and now >= self._began + _AGAIN_S)
            if trial is None or is_new:
                self._began = now
                self._trial = trial = self._ledger.submit(self._try)
            patience_s = self._began + _PATIENCE_S - now
        if is_new:
            # Outside of the lock, which the callback takes, and which may be called at once.
            trial.add_done_callback(self._note)
        if not wait([trial], max(0.0, patience_s)).done:
            return f"changes cannot be committed: {_STUCK}"
        error = trial.exception()
        return None if _is_success(error) else f"changes cannot be committed: {_reason(error)}"

    def _try(self, transaction: Transaction) -> None:
        transaction.save(Transition(record=self._trial_record()))
        raise _UndoneError

    def _note(self, future: "Future[Any]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        with self._lock:
            was_failing = self._is_failing
            if _is_success(error):
                self._certain_until = self._monotonic() + CERTAIN_S
                self._is_failing = False
            else:
                self._certain_until = float("-inf")
                # Others being in the way for a moment, or the process stopping, is no failure of the ledger.
                self._is_failing = was_failing or isinstance(error, LedgerUnavailableError | BrokenLedgerError)
            is_failing = self._is_failing
        if is_failing and not was_failing:
            _log.error("changes cannot be committed: %s", error)
        elif was_failing and not is_failing:
            _log.warning("changes are committed again")


def _is_success(error: BaseException | None) -> bool:
    """Tell whether the ledger did its part: a change that was refused for what it says is one that it could make."""
    return not isinstance(error, TryLaterError | BrokenLedgerError)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, LedgerUnavailableError):
        return error.reason
    if isinstance(error, LedgerBusyError):
        return "others hold what they need for too long"
    if isinstance(error, ShuttingDownError):
        return "the service is stopping"
    return "the database refuses what it should take"
