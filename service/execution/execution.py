"""One claimed run, from its start to the end that is recorded; other threads may stop it at any moment."""

import threading

import msgspec

from service.errors import ConflictError
from service.execution.excerpt import excerpt
from service.execution.outcome import Reason, RunResult
from service.execution.preparation import Prepared, RunSurroundings, prepare
from service.execution.runner import RunningProcess, start_run
from service.jobs.model import Job
from service.operations.runs import Claimed
from service.operations.steps import Ended
from service.ports import Reads
from service.secrets import DeploymentSecret

# The run as such failed, not its command: another attempt may go better, whatever the template says.
_OF_THE_MACHINERY = frozenset({Reason.START_FAILED, Reason.SUPERVISOR_LOST, Reason.LEASE_LOST})


class Execution:
    """A run that this worker owns."""

    def __init__(self, claimed: Claimed, lease_until_ms: int) -> None:
        """Own a run until `lease_until_ms` on the clock of `boot_ms`, by when its command is killed."""
        self.claimed = claimed
        self._lease_until_ms = lease_until_ms
        self._lock = threading.Lock()
        self._process: RunningProcess | None = None
        self._stopped_for: str | None = None

    def carry_out(self, reads: Reads, secret: DeploymentSecret, around: RunSurroundings) -> Ended:
        """Execute the command and return how it ended; nothing of it is left then.

        Raises:
            TryLaterError: the ledger could not be read; nothing was started.
        """
        try:
            prepared = prepare(self.claimed, reads, secret, around)
        except ConflictError as error:
            return _not_started(Reason.START_FAILED.value, error.detail)
        with self._lock:
            if self._stopped_for is not None:
                return _not_started(self._stopped_for, "stopped before the command was started")
            spec = msgspec.structs.replace(prepared.spec, lease_until_ms=self._lease_until_ms)
            self._process = process = start_run(spec)
        result = process.wait()
        if result is None:
            raise AssertionError("a wait without end returns a result")
        return _ended(result, self.claimed.job, prepared)

    def extend(self, lease_until_ms: int) -> None:
        """Let the command run until then."""
        with self._lock:
            self._lease_until_ms = lease_until_ms
            if self._process is not None:
                self._process.extend(lease_until_ms)

    def stop(self, reason: str) -> None:
        """Ask the command to end, if it has not; the first reason counts and becomes its error type."""
        with self._lock:
            if self._stopped_for is None:
                self._stopped_for = reason
                if self._process is not None:
                    self._process.cancel(reason)

    def kill(self) -> None:
        """Kill the command, if it has not ended; it was asked to end before."""
        with self._lock:
            if self._process is not None:
                self._process.kill()


def _not_started(error_type: str, reason: str) -> Ended:
    return Ended(error_type=error_type, reason=reason, exit_code=None, duration_ms=0, is_retryable=False)


def _ended(result: RunResult, job: Job, prepared: Prepared) -> Ended:
    return Ended(
        error_type=result.error_type,
        reason=prepared.hide(result.detail) if result.detail else None,
        exit_code=result.exit_code,
        duration_ms=result.duration_ms,
        is_retryable=_is_retryable(result, job),
        stderr_end=excerpt(result.stderr_end, prepared.secrets.values()),
        artifacts=tuple({prepared.hide(name): payload for name, payload in result.artifacts}.items()),
    )


def _is_retryable(result: RunResult, job: Job) -> bool:
    """Tell whether another attempt may follow: any failure, unless the template says which exit codes."""
    codes = job.plan.retry_exit_codes if job.plan else None
    if codes is None or result.reason in _OF_THE_MACHINERY:
        return True
    if result.reason is Reason.SIGNAL and result.signal is not None:
        # As a shell reports it.
        return 128 + result.signal in codes
    return result.reason is Reason.EXIT and result.exit_code in codes
