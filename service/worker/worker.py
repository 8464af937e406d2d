"""The worker: claims due runs, renews their leases, stops cancelled ones, and reclaims those of dead workers."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from service.errors import AuditraceError, RefusedError, TryLaterError
from service.execution.command import boot_ms
from service.execution.execution import Execution
from service.execution.preparation import RunSurroundings
from service.execution.recorded import JOB_DIFFERS
from service.loop import Loop
from service.operations.runs import CANCELLED, LEASE_LOST, WORKER_SHUTDOWN, RunOperations
from service.operations.steps import Ended
from service.outage import Outage
from service.ports import Clock, Reads
from service.secrets import DeploymentSecret
from telemetry.instruments import Instruments

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Commits of other processes do not wake this worker.
_POLL_S: Final = 0.5
_RECLAIM_S: Final = 1.0
# The part of a lease in which a command may run. It is killed in the rest, before another worker can reclaim the run.
_USED: Final = 0.8
# Commits that follow each other closely cause one turn.
_SETTLE_S: Final = 0.02


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs a worker has at a time, how often it renews their leases, and what it gives to each run."""

    slots: int
    renew_s: float
    around: RunSurroundings


class Worker:
    """The worker of a process: one thread that claims and renews, and one thread for each slot.

    All methods may be called from any thread. A worker is started and stopped once.
    """

    def __init__(
        self,
        operations: RunOperations,
        reads: Reads,
        secret: DeploymentSecret,
        settings: WorkerSettings,
        instruments: Instruments,
        clock: Clock,
    ) -> None:
        self._operations = operations
        self._reads = reads
        self._secret = secret
        self._settings = settings
        self._instruments = instruments
        self._clock = clock
        self._lock = threading.Lock()
        self._executions: list[Execution] = []
        self._handed_over: queue.SimpleQueue[Execution | None] = queue.SimpleQueue()
        self._outage = Outage(
            _log, "the worker waits for the ledger", "the worker waits for the ledger no more", logging.WARNING
        )
        self._pause_s = _POLL_S
        self._renew_at = 0.0
        self._reclaim_at = 0.0
        self._grace_ended = threading.Event()
        self._hurried = threading.Event()
        self.refused: list[str] = []
        """The names of the runs that were not started because their jobs are not what the records state."""
        self._loop = Loop("worker", self._turn, lambda: not self._running())
        # Runs share threads, because each thread that reads the ledger has a connection of its own.
        self._slots = [
            threading.Thread(target=self._work, name=f"worker-{slot}", daemon=True) for slot in range(settings.slots)
        ]

    def start(self) -> None:
        """Start claiming."""
        self._loop.start()
        for slot in self._slots:
            slot.start()

    def wake(self) -> None:
        """Look at once for due and cancelled runs; to be called after each commit. Never blocks."""
        self._loop.wake()

    def retire(self) -> Sequence[str]:
        """Claim nothing from now on, and return the names of the runs in progress. Never blocks."""
        self._loop.retire()
        return [one.claimed.name for one in self._running()]

    def hurry(self) -> None:
        """Kill the runs in progress and let `stop` hand them back now."""
        self._hurried.set()
        self._grace_ended.set()
        self.wake()

    def stop(self, grace_s: float, kill_s: float | None = None) -> None:
        """Stop claiming, give runs `grace_s` seconds to end, then stop them and hand them back.

        Returns when no run is left. The ledger must still be open, because each end is recorded.

        Args:
            grace_s: how long runs may go on.
            kill_s: how long a run may take to end after SIGTERM; None means as long as any stopped run.
        """
        self._loop.stop(grace_s)
        self._grace_ended.set()
        self.wake()
        if kill_s is not None:
            self._loop.stop(kill_s)
            self.hurry()
        self._loop.stop()
        for _ in self._slots:
            self._handed_over.put(None)
        for slot in self._slots:
            if slot.is_alive():
                slot.join()

    @property
    def problem(self) -> str | None:
        """How many runs were refused, and the first of them; None if there is none."""
        refused = self.refused
        runs = "1 run was" if len(refused) == 1 else f"{len(refused)} runs were"
        return f"{runs} refused, first {refused[0]}: its job is not what its records state" if refused else None

    def _turn(self) -> None:
        self._pause_s = _POLL_S
        self._outage.attempt(self._look)
        self._grace_ended.wait(_SETTLE_S)
        self._loop.wait_for_wake(self._pause_s)

    def _look(self) -> None:
        self._keep()
        if not self._loop.is_stopping:
            self._reclaim()
            self._pause_s = self._claim()

    def _running(self) -> Sequence[Execution]:
        with self._lock:
            return tuple(self._executions)

    def _keep(self) -> None:
        """Renew the leases when it is time to, and stop runs that are cancelled or past the grace."""
        running = self._running()
        if self._grace_ended.is_set():
            for execution in running:
                execution.stop(WORKER_SHUTDOWN)
                if self._hurried.is_set():
                    execution.kill()
        if not running:
            return
        cancelled = self._reads.cancelled_runs(self._operations.worker_id)
        for execution in running:
            if execution.claimed.job.job_id in cancelled:
                execution.stop(CANCELLED)
        now = time.monotonic()
        if now >= self._renew_at:
            until_ms = self._lease_until_ms()
            lost = self._operations.renew([execution.claimed for execution in running])
            self._renew_at = now + self._settings.renew_s
            for execution in running:
                if execution.claimed in lost:
                    execution.stop(LEASE_LOST)
                else:
                    execution.extend(until_ms)

    def _claim(self) -> float:
        """Claim due runs while a slot is free; return how many seconds to wait for the next one."""
        while len(self._running()) < self._settings.slots:
            due_ns = self._reads.next_due_ns()
            if due_ns is None:
                return _POLL_S
            wait_s = (due_ns - self._clock()) / 1e9
            if wait_s > 0:
                return min(wait_s, _POLL_S)
            until_ms = self._lease_until_ms()
            claimed = self._operations.claim()
            if claimed is None:
                return _POLL_S
            execution = Execution(claimed, until_ms)
            with self._lock:
                self._executions.append(execution)
            self._handed_over.put(execution)
        return _POLL_S

    def _lease_until_ms(self) -> int:
        """Return until when a command may run under a lease that is taken now, in milliseconds since the boot."""
        return boot_ms() + int(self._operations.lease_ns / 1_000_000 * _USED)

    def _reclaim(self) -> None:
        now = time.monotonic()
        if now < self._reclaim_at:
            return
        while self._operations.reclaim([execution.claimed for execution in self._running()]):
            _log.warning("a run was reclaimed from a worker that is gone")
        self._reclaim_at = now + _RECLAIM_S

    def _work(self) -> None:
        while (execution := self._handed_over.get()) is not None:
            self._run(execution)

    def _run(self, execution: Execution) -> None:
        claimed = execution.claimed
        name = claimed.name
        started = time.monotonic()
        error_type: str | None = None
        try:
            ended = self._retried(lambda: execution.carry_out(self._reads, self._secret, self._settings.around))
            error_type = ended.error_type
            if error_type == JOB_DIFFERS:
                _log.error("%s was refused: %s", name, ended.reason)
                self.refused.append(name)
            self._retried(lambda: self._record(execution, ended))
        except RefusedError as error:
            _log.warning("the end of %s was not accepted: %s", name, error.detail)
        except Exception as error:  # noqa: BLE001 - the slot must become free after any error
            # When its lease has ended, another worker reclaims the run and closes it as unknown.
            error_type = error.error_type if isinstance(error, AuditraceError) else type(error).__name__
            _log.exception("the end of %s was not recorded", name)
        finally:
            claimed.span.end(error_type)
            self._instruments.run_ended(time.monotonic() - started, claimed.job.template, error_type)
            with self._lock:
                self._executions.remove(execution)
            self.wake()

    def _record(self, execution: Execution, ended: Ended) -> None:
        if ended.error_type == WORKER_SHUTDOWN:
            self._operations.release(execution.claimed, ended)
        else:
            self._operations.finish(execution.claimed, ended)

    def _retried(self, action: Callable[[], T]) -> T:
        """Repeat an action until it succeeds or the grace ends; an outage of the ledger alone loses no outcome."""
        outage = Outage(_log, "a run waits for the ledger", "a run waits for the ledger no more", logging.WARNING)
        while True:
            try:
                done = action()
            except TryLaterError as error:
                outage.note(error.detail)
                if self._grace_ended.wait(error.retry_after_s):
                    raise
            else:
                outage.note(None)
                return done
