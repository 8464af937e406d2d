"""Executing a command within limits: as a real subprocess under a supervisor that dies, and kills, with its worker.

The supervisor (`service/execution/supervisor.py`) does what must not be done in a process with threads, and what must
be done when this process is gone. A run may not gain privileges, so that programs such as `sudo` fail in it.

Not promised: protection of the worker from a hostile command. Both run as the same user, who may read what it may read.
"""

import threading
import time

from service.execution.outcome import RunResult, start_failed
from service.execution.spec import RunSpec
from service.execution.supervised import SupervisedRun


class RunningProcess:
    """A run that was started; its methods may be called from any thread."""

    def __init__(self, supervised: SupervisedRun | None, result: RunResult | None) -> None:
        """Follow a supervised run, or stand for one that ended before it began."""
        self._supervised = supervised
        self._result = result
        self._waiting = threading.Lock()

    def wait(self, timeout_s: float | None = None) -> RunResult | None:
        """Return the result once the run has ended and nothing of it is left; None when that takes longer."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._waiting.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return None
        try:
            if self._result is None and self._supervised is not None:
                self._result = self._supervised.result(deadline)
            return self._result
        finally:
            self._waiting.release()

    def cancel(self, reason: str) -> None:
        """Ask the run to end: SIGTERM to its process group, SIGKILL after 5 s; `reason` becomes its `error_type`.

        Returns at once; the first reason counts; nothing happens to a run that has ended.
        """
        if self._supervised is not None:
            self._supervised.cancel(reason)

    def kill(self) -> None:
        """Kill a run that was asked to end, without waiting longer. Returns at once."""
        if self._supervised is not None:
            self._supervised.tell("kill")

    def extend(self, lease_until_ms: int) -> None:
        """Let the run go on until then. Returns at once; nothing happens to a run that has ended."""
        if self._supervised is not None:
            self._supervised.tell(f"until {lease_until_ms}")


def start_run(spec: RunSpec) -> RunningProcess:
    """Start a run in a fresh folder; it ends when this process does, SIGKILL included.

    Never raises for what can go wrong with a run: the result then says `start_failed` and why.
    """
    try:
        return RunningProcess(SupervisedRun(spec), None)
    except (OSError, ValueError) as error:
        return RunningProcess(None, start_failed(f"the run could not be prepared: {error}"))
