"""Finds out when changes cannot be committed although the ledger can be read, and when they can be committed again.

The result of every submitted change shows it. If no change was committed for a while, or one failed, a trial shows it:
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
"""For so many seconds after a commit, there is no trial."""

_AGAIN_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_STUCK: Final = "they do not come to an end, as when no standby that must confirm is there"


class _UndoneError(Exception):
    """The trial succeeded; this error undoes it."""


class WatchedLedger:
    """Implements `service.ports.Ledger` over another one, and reports whether changes can be committed."""

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
        """Submit work to the ledger."""
        future = self._ledger.submit(work)
        future.add_done_callback(self._note)
        return future

    def problem(self) -> str | None:
        """Return why changes cannot be committed, None while they can; waits at most five seconds for a trial.

        The text names no host, port or path; the log has the database's error. However often this is called, there is
        one trial at a time, and none within a second of the last one. In a lane without a stream, a trial opens one, as
        any change does; it leaves no other trace.
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
            timeout_s = self._began + _TIMEOUT_S - now
        if is_new:
            # Outside of the lock, because the callback takes it, and may be called at once.
            trial.add_done_callback(self._note)
        if not wait([trial], max(0.0, timeout_s)).done:
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
                # If the ledger is busy for a moment, or the process is stopping, the ledger has not failed.
                self._is_failing = was_failing or isinstance(error, LedgerUnavailableError | BrokenLedgerError)
            is_failing = self._is_failing
        if is_failing and not was_failing:
            _log.error("changes cannot be committed: %s", error)
        elif was_failing and not is_failing:
            _log.warning("changes are committed again")


def _is_success(error: BaseException | None) -> bool:
    """Tell whether the ledger can commit: a change that was refused for its content could have been committed."""
    return not isinstance(error, TryLaterError | BrokenLedgerError)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, LedgerUnavailableError):
        return error.reason
    if isinstance(error, LedgerBusyError):
        return "others hold what they need for too long"
    if isinstance(error, ShuttingDownError):
        return "the service is stopping"
    return "the database refuses what it should take"
