"""Which runs this worker has: it claims what is due, keeps the leases, stops what is not wanted, reclaims the lost."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from service.errors import AuditraceError, RefusedError, TryLaterError
from service.execution.command import boot_ms
from service.execution.execution import Execution
from service.execution.preparation import RunSurroundings
from service.operations.runs import CANCELLED, LEASE_LOST, WORKER_SHUTDOWN, RunOperations
from service.operations.steps import Ended
from service.outage import Outage
from service.ports import Clock, Reads
from service.secrets import DeploymentSecret

T = TypeVar("T")

_log = logging.getLogger(__name__)

# What another process commits wakes nobody here.
_POLL_S: Final = 0.5
_RECLAIM_S: Final = 1.0
# Of a lease; in the rest the command is killed, so that whoever reclaims the run finds nothing of it.
_USED: Final = 0.8
# However many commits there are, they are looked at together.
_SETTLE_S: Final = 0.02


class RunInstruments(Protocol):
    """What a worker measures."""

    def run_ended(self, duration_s: float, template: str, error_type: str | None) -> None:
        """Record one run of a job; `error_type` is None when it succeeded."""
        ...


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works: how many runs at a time, how often their leases are renewed, and what runs are given."""

    slots: int
    renew_s: float
    around: RunSurroundings


class Worker:
    """The worker of a process: one thread that decides, and one for each slot.

    All methods may be called from any thread. A worker is started and stopped once.
    """

    def __init__(
        self,
        operations: RunOperations,
        reads: Reads,
        secret: DeploymentSecret,
        settings: WorkerSettings,
        instruments: RunInstruments,
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
        self._renew_at = 0.0
        self._reclaim_at = 0.0
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._grace_ended = threading.Event()
        self._hurried = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="worker", daemon=True)
        # The same threads for all runs, because each thread that reads the ledger has a connection of its own.
        self._slots = [
            threading.Thread(target=self._work, name=f"worker-{slot}", daemon=True) for slot in range(settings.slots)
        ]

    def start(self) -> None:
        """Start claiming."""
        for thread in (self._thread, *self._slots):
            thread.start()

    def wake(self) -> None:
        """Look at once for what is due or not wanted any more; to be called after each commit. Never blocks."""
        self._woken.set()

    def retire(self) -> Sequence[str]:
        """Claim nothing from now on, and return which runs still go on. Never blocks."""
        self._stopping.set()
        self.wake()
        return [one.claimed.name for one in self._running()]

    def hurry(self) -> None:
        """Kill what still runs and have `stop` hand it back now; from any thread."""
        self._hurried.set()
        self._grace_ended.set()
        self.wake()

    def stop(self, grace_s: float, kill_s: float | None = None) -> None:
        """Stop claiming, give runs `grace_s` seconds to end, then stop them and hand them back.

        Returns when no run is left. The ledger must still be open, because each end is recorded.

        Args:
            grace_s: for how long runs may go on.
            kill_s: how long a run may take to heed SIGTERM; None is as long as any run may.
        """
        self.retire()
        if self._thread.ident is not None:
            self._thread.join(grace_s)
            self._grace_ended.set()
            self.wake()
            if kill_s is not None:
                self._thread.join(kill_s)
                self.hurry()
            for thread in (self._thread, *self._slots):
                thread.join()

    def _serve(self) -> None:
        while not (self._stopping.is_set() and not self._running()):
            pause_s = _POLL_S
            try:
                self._keep()
                if not self._stopping.is_set():
                    self._reclaim()
                    pause_s = self._claim()
                self._outage.note(None)
            except TryLaterError as error:
                self._outage.note(error.detail)
            except Exception as error:  # noqa: BLE001 - whatever it was, the runs in progress need their leases
                self._outage.unexpected(error)
            self._grace_ended.wait(_SETTLE_S)
            self._woken.wait(pause_s)
            self._woken.clear()
        for _ in self._slots:
            self._handed_over.put(None)

    def _running(self) -> Sequence[Execution]:
        with self._lock:
            return tuple(self._executions)

    def _keep(self) -> None:
        """Renew the leases when it is time to, and stop what is not wanted any more."""
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
        """Claim what is due as long as a slot is free; return how long nothing more is to be expected."""
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
        """Return until when a command may run under a lease that is taken from now on."""
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
            ended = self._patiently(lambda: execution.carry_out(self._reads, self._secret, self._settings.around))
            error_type = ended.error_type
            self._patiently(lambda: self._record(execution, ended))
        except RefusedError as error:
            _log.warning("the end of %s was not accepted: %s", name, error.detail)
        except Exception as error:  # noqa: BLE001 - whatever it was, the slot must become free
            # Whoever reclaims the run once its lease has ended closes it as unknown; that is what is known then.
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

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do it again until it succeeds: an outage of the ledger loses no outcome, short of the end of the grace."""
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
