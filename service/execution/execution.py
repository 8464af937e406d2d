"""Carries out one claimed run, from its start to the result that is recorded. Other threads may stop it."""

import signal
import threading

import msgspec

from service.errors import ConflictError
from service.execution.excerpt import excerpt
from service.execution.outcome import Reason, RunResult, start_failed
from service.execution.preparation import Prepared, RunSurroundings, prepare
from service.execution.recorded import JOB_DIFFERS, difference
from service.execution.supervised import SupervisedRun
from service.jobs.model import Job
from service.operations.runs import Claimed
from service.operations.steps import Ended
from service.ports import Reads
from service.secrets import DeploymentSecret

# The run failed, not its command. Another attempt may succeed, whatever the template says.
_OF_THE_MACHINERY = frozenset({Reason.START_FAILED, Reason.SUPERVISOR_LOST, Reason.LEASE_LOST})


class Execution:
    """A run that this worker owns."""

    def __init__(self, claimed: Claimed, lease_until_ms: int) -> None:
        """Own a run until `lease_until_ms` on the clock of `boot_ms`; its command is killed then."""
        self.claimed = claimed
        self._lease_until_ms = lease_until_ms
        self._lock = threading.Lock()
        self._run: SupervisedRun | None = None
        self._stopped_for: str | None = None

    def carry_out(self, reads: Reads, secret: DeploymentSecret, around: RunSurroundings) -> Ended:
        """Execute the command, if the job is as recorded, and return how it ended; nothing of it is left then.

        Raises:
            TryLaterError: the ledger could not be read; nothing was started.
        """
        job = self.claimed.job
        try:
            differs = difference(job, reads.stated_versions(job.job_id, job.version - 1), secret)
            if differs is not None:
                return _not_started(JOB_DIFFERS, differs)
            prepared = prepare(self.claimed, reads, secret, around)
        except ConflictError as error:
            return _not_started(Reason.START_FAILED.value, error.detail)
        with self._lock:
            if self._stopped_for is not None:
                return _not_started(self._stopped_for, "stopped before the command was started")
            spec = msgspec.structs.replace(prepared.spec, lease_until_ms=self._lease_until_ms)
            try:
                self._run = run = SupervisedRun(spec)
            except (OSError, ValueError) as error:
                failed = start_failed(f"the run could not be prepared: {error}")
                return _ended(failed, self.claimed.job, prepared)
        return _ended(run.wait(), self.claimed.job, prepared)

    def extend(self, lease_until_ms: int) -> None:
        """Let the command run until this new end of the lease."""
        with self._lock:
            self._lease_until_ms = lease_until_ms
            if self._run is not None:
                self._run.extend(lease_until_ms)

    def stop(self, reason: str) -> None:
        """Ask the command to end, if it still runs. The first reason counts and becomes its error type."""
        with self._lock:
            if self._stopped_for is None:
                self._stopped_for = reason
                if self._run is not None:
                    self._run.cancel(reason)

    def kill(self) -> None:
        """Kill the command, if it still runs, after `stop` has asked it to end."""
        with self._lock:
            if self._run is not None:
                self._run.kill()


def _not_started(error_type: str, reason: str) -> Ended:
    return Ended(error_type=error_type, reason=reason, exit_code=None, duration_ms=0, is_retryable=False)


def _ended(result: RunResult, job: Job, prepared: Prepared) -> Ended:
    return Ended(
        error_type=result.error_type,
        reason=prepared.hide(result.detail) if result.detail else None,
        exit_code=result.exit_code,
        signal=None if result.signal is None else _signal_name(result.signal),
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        peak_memory_bytes=result.peak_memory_bytes,
        duration_ms=result.duration_ms,
        is_retryable=_is_retryable(result, job),
        stderr_end=excerpt(result.stderr_end, prepared.secrets.values()),
        artifacts=tuple({prepared.hide(name): payload for name, payload in result.artifacts}.items()),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Realtime signals between the first and the last have no name.
        return f"SIG{number}"


def _is_retryable(result: RunResult, job: Job) -> bool:
    """Return whether another attempt may follow: after any failure, unless the template lists exit codes."""
    codes = job.plan.retry_exit_codes if job.plan else None
    if codes is None or result.reason in _OF_THE_MACHINERY:
        return True
    if result.reason is Reason.SIGNAL and result.signal is not None:
        # A shell reports a signal this way.
        return 128 + result.signal in codes
    return result.reason is Reason.EXIT and result.exit_code in codes
