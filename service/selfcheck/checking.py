"""Verifies what was added to the service's own ledger, on schedule, and says in which state it found it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.loop import Loop
from service.outage import Outage
from service.ports import Reads, RegisteredKey
from service.selfcheck.added import Added, Mark, last_number
from service.selfcheck.alarm import Alarm
from service.selfcheck.unsettled import Unsettled
from telemetry.audit.verify import Finding, Found, Report, Scope, verify

_log = logging.getLogger(__name__)


class SelfCheckState(msgspec.Struct, frozen=True, kw_only=True):
    """What the verifications of this process found, as far as none of the whole ledger has denied it since.

    `command` prints the findings. `age_s` is the time since a verification last went through; None before the first,
    and while another process is to make them. `error` says what kept the last one from going through; None when
    nothing did.
    """

    findings: int
    first: str | None
    command: str | None
    age_s: float | None
    error: str | None


class _StoppedError(Exception):
    """The process stops: what is under way is given up."""


class SelfCheck:
    """A thread that verifies, each interval, everything behind the checkpoint at which the last time ended.

    The first time begins at the last checkpoint, which is taken as it is: what is before that is the business of
    `auditrace verify --database`. Of all processes the one that writes checkpoints verifies. While there are findings
    it verifies the whole ledger now and then, and drops what that does not show (`Alarm`). What a step of the clock can
    make of an untouched ledger is held back until the checkpoints had the time to settle it (`Unsettled`).
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
        """Read what was added by `reads`, and one snapshot of the whole ledger by `records`."""
        self._reads = reads
        self._records = records
        self._keys = keys
        self._is_wanted = is_wanted
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._mark: Mark | None = None
        self._alarm = Alarm(interval_s)
        self._unsettled = Unsettled()
        self._ended: float | None = None
        self._outage = Outage(_log, "the ledger could not be verified, trying on", "the ledger is verified again")
        self._loop = Loop("selfcheck", self._turn_and_rest)

    def start(self) -> None:
        """Start to verify."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread; a verification that is under way is given up."""
        self._loop.stop()

    def state(self) -> SelfCheckState:
        """Return what was found; reads nothing."""
        ended, shown = self._ended, self._alarm.shown
        return SelfCheckState(
            findings=shown.findings,
            first=shown.first,
            command=shown.command,
            age_s=None if ended is None else max(0.0, self._monotonic() - ended),
            error=self._outage.problem,
        )

    def turn(self) -> None:
        """Verify once what was added, and the whole ledger if there are findings and it is time to.

        Raises:
            AuditraceError: the ledger could not be read; the next turn begins where this one did.
            OSError: there is no room on disk for what a verification does not hold in memory.
        """
        self._verify_added()
        if self._alarm.is_due(self._monotonic()) and not self._loop.is_stopping:
            self._verify_all()

    def _verify_added(self) -> None:
        if not self._is_wanted():
            # What happens until this process is asked again, another one verifies.
            self._mark, self._ended = None, None
            return
        added = Added(self._reads, self._mark, lambda: self._loop.is_stopping)
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
            self._alarm.asked(began_s, self._monotonic())
        last = report.last_checkpoint
        self._alarm.settle(report, self._settled(report, 0 if last is None else last.number), known)

    def _settled(self, report: Report, last: int) -> Sequence[Finding]:
        return self._unsettled.settled(report.findings, last, lambda: last_number(self._reads))

    def _all_records(self) -> Iterator[Found]:
        """Yield all records, and do not keep what is added meanwhile waiting for as long as that takes."""
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
        # A process that has just started has no checkpoint to begin at for a moment.
        self._loop.rest(self._interval_s if self._ended is not None else min(self._interval_s, 1.0))
