"""Verifies the records that were added to the own ledger, on schedule, and reports what it found."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.loop import Loop
from service.outage import Outage
from service.ports import Reads, RegisteredKey
from service.selfcheck.added import AddedRecords, VerifiedUpTo, last_number
from service.selfcheck.alarm import Alarm
from service.selfcheck.unsettled import Unsettled
from telemetry.audit.verify import Finding, Found, Report, Scope, verify

_log = logging.getLogger(__name__)


class SelfCheckState(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of this process that no later verification of the whole ledger has removed.

    `command` prints them. `age_s` is the time since the last complete verification; None before the first one, and
    while another process verifies. `error` is the failure of the last verification; None when it did not fail.
    """

    findings: int
    first: str | None
    command: str | None
    age_s: float | None
    error: str | None


class _StoppedError(Exception):
    """The process stops: the verification in progress is abandoned."""


class SelfCheck:
    """A thread that verifies, each interval, all records behind the checkpoint at which the last verification ended.

    The first verification begins at the last checkpoint and trusts it; `auditrace verify --database` verifies what is
    before that. Only the process that writes checkpoints verifies. While there are findings it also verifies the whole
    ledger from time to time, and removes the findings that this does not show (`Alarm`). A finding that a step of the
    clock can cause in an untouched ledger is held back until two more checkpoints were written (`Unsettled`).
    """

    def __init__(
        self,
        reads: Reads,
        records: Callable[[], Iterator[Found]],
        keys: Callable[[], Sequence[RegisteredKey]],
        is_wanted: Callable[[], bool],
        interval_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """Read added records with `reads`, and one snapshot of the whole ledger with `records`."""
        self._reads = reads
        self._records = records
        self._keys = keys
        self._is_wanted = is_wanted
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._mark: VerifiedUpTo | None = None
        self._alarm = Alarm(interval_s)
        self._unsettled = Unsettled()
        self._ended: float | None = None
        self._outage = Outage(
            _log, "the ledger could not be verified, trying on", "the self-verification no longer fails"
        )
        self._loop = Loop("selfcheck", self._turn_and_rest)

    def start(self) -> None:
        """Start to verify."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread; a verification in progress is abandoned."""
        self._loop.stop()

    def state(self) -> SelfCheckState:
        """Return the findings; reads nothing."""
        ended, shown = self._ended, self._alarm.shown
        return SelfCheckState(
            findings=shown.findings,
            first=shown.first,
            command=shown.command,
            age_s=None if ended is None else max(0.0, self._monotonic() - ended),
            error=self._outage.problem,
        )

    def turn(self) -> None:
        """Verify the added records once, and also the whole ledger when there are findings and it is due.

        Raises:
            AuditraceError: the ledger could not be read; the next turn begins where this one did.
            OSError: the disk has no room for the temporary files of a verification.
        """
        self._verify_added()
        if self._alarm.is_due(self._monotonic()) and not self._loop.is_stopping:
            self._verify_all()

    def _verify_added(self) -> None:
        if not self._is_wanted():
            # Another process verifies from here on, until this one is wanted again.
            self._mark, self._ended = None, None
            return
        added = AddedRecords(self._reads, self._mark, lambda: self._loop.is_stopping)
        if added.mark is None:
            return
        scope = Scope(behind=added.mark.number, covered=added.mark.covered)
        report = verify(added.found(), public_keys=self._public_keys(), scope=scope)
        if self._loop.is_stopping:
            return
        next_mark = added.next_mark or added.mark
        self._alarm.add(self._settled(report, next_mark.number), added.mark.number)
        self._mark = next_mark
        self._ended = self._monotonic()

    def _verify_all(self) -> None:
        known, began_s = self._alarm.findings, self._monotonic()
        try:
            report = verify(self._all_records(), public_keys=self._public_keys())
        except _StoppedError:
            return
        finally:
            self._alarm.verified(began_s, self._monotonic())
        last = report.last_checkpoint
        self._alarm.settle(report, self._settled(report, 0 if last is None else last.number), known)

    def _settled(self, report: Report, last: int) -> Sequence[Finding]:
        return self._unsettled.settled(report.findings, last, lambda: last_number(self._reads))

    def _all_records(self) -> Iterator[Found]:
        """Yield all records; in between, verify the added ones each interval."""
        due_s = self._monotonic() + self._interval_s
        for one in self._records():
            if self._loop.is_stopping:
                raise _StoppedError
            yield one
            if self._monotonic() >= due_s:
                self._verify_added()
                due_s = self._monotonic() + self._interval_s

    def _public_keys(self) -> Sequence[Ed25519PublicKey]:
        return [cast("Ed25519PublicKey", load_pem_public_key(key.public_pem.encode())) for key in self._keys()]

    def _turn_and_rest(self) -> None:
        self._outage.attempt(self.turn)
        # Just after the start there may be no checkpoint yet to begin at.
        self._loop.rest(self._interval_s if self._ended is not None else min(self._interval_s, 1.0))
