"""The process between a worker and a command. It ensures that no process of a run outlives its worker.

It uses only the standard library, because each run starts a supervisor. Standard input is the control pipe: first a
JSON line that says what to run, then lines `cancel`, `kill`, or `until` with the new end of the lease. End of file
means that the worker is dead or has taken the report. Standard output gets a JSON line when the command has started,
and one when the run is over. A run is killed when its lease ends, so that it never runs beside the run that replaces
it, even when its worker hangs.

No process escapes. The supervisor adopts orphaned descendants (PR_SET_CHILD_SUBREAPER), and a run is over only when
the kernel reports that no child is left. Processes cannot gain privileges (PR_SET_NO_NEW_PRIVS), so they can always be
killed. Not promised: when the supervisor itself is killed, only the command dies at once (PR_SET_PDEATHSIG); the
worker finds and kills its descendants. In a sandbox all of them die at once.
"""

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.execution.command import PR_SET_CHILD_SUBREAPER, Order, become_command, boot_ms, control_process
from service.execution.confine import PR_SET_DUMPABLE, confine
from service.execution.control import CONTROL, SupervisorReport, receive_order, send
from service.execution.folder import STREAMS, WORK, remove_folder
from service.execution.folder_watch import Excess, FolderWatch
from service.execution.freezing import come_first, freeze, resting, signal_all, thaw
from service.execution.procfs import (
    children_of,
    cpu_s,
    descendants,
    family,
    namespace_of,
    peak_bytes,
    resident_bytes,
    stat_fields,
    uses_more_memory,
)
from service.execution.sandbox import Sandbox, SandboxError, leave_machinery
from service.execution.users import RunUser

GRACE_S: Final = 5.0
_SAMPLE_S: Final = 0.1
_REST: Final = 3
"""How many times as long as a sample takes it is before the next one."""


class SupervisedCommand:
    """One run, from the fork of its command until none of its processes is left."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._folder = Path(order["folder"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._streams = [os.open(self._folder / name, flags, 0o600) for name in STREAMS]
        self._wakeups, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._watch = FolderWatch(order, self._streams)
        self._sample_at = 0.0
        self._most_resident_bytes = 0
        self._lease_until_ms = order["lease_until_ms"]
        self._controlled = bytearray()
        self._stopped: str | None = None
        self._detail = ""
        self._kill_at = float("inf")
        self._pid = 0
        self._user: int | None = None
        self._machinery: frozenset[int] = frozenset()
        self._wait_status = 0

    def supervise(self, received: bytes) -> SupervisorReport:
        """Execute the command and return the report of its end. No process of the run exists afterwards.

        Args:
            received: bytes that came over the control pipe after the order.
        """
        started = time.monotonic()
        failure = self._start()
        if failure:
            self._kill_all()
            return {"start_failed": failure}
        try:
            namespace = namespace_of(self._pid) if self._machinery else None
            send({"pid": self._pid, "namespace": namespace, "user": self._user})
            self._obey(received)
            ended = self._until_ended(started + self._order["timeout_ms"] / 1000)
        finally:
            self._kill_all()
        # What the run left counts as well, so that the result does not depend on the moments of the samples.
        if self._stopped is None and (excess := self._watch.excess([])):
            self._stopped, self._detail = excess
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = os.waitstatus_to_exitcode(self._wait_status)
        report: SupervisorReport = {
            "stopped": self._stopped,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "duration_ms": round((ended - started) * 1000),
            "cpu_ms": round((usage.ru_utime + usage.ru_stime) * 1000),
        }
        # The kernel knows the peak of each process, also between samples; only a sample has their sum. A command begins
        # as a copy of this process, so that a smaller peak of the kernel says nothing about it.
        peak = usage.ru_maxrss * 1024
        peak = max(self._most_resident_bytes, peak if peak > peak_bytes(os.getpid()) else 0)
        if self._detail:
            report["detail"] = self._detail
        return {**report, "peak_memory_bytes": peak} if peak else report

    def _start(self) -> str:
        """Fork the command; return why it could not be executed, or an empty text."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        supervisor = os.getpid()
        try:
            self._pid = self._fork()
        except (OSError, SandboxError) as error:
            return f"the isolation of the run could not be made: {error}"
        if self._pid == 0:
            reason = "the process could not be prepared"
            try:
                if self._machinery and self._user is None:
                    leave_machinery()
                confine(self._user, is_guarded=self._order["is_guarded"])
                become_command(self._order, self._streams, 0 if self._order["bwrap"] else supervisor)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
            finally:
                os.write(writing, f"{self._order['argv'][0]}: {reason}".encode(errors="replace"))
                os._exit(127)
        os.close(writing)
        with os.fdopen(reading, "rb") as failures:
            return failures.read().decode()

    def _fork(self) -> int:
        """Fork this process, into a sandbox if the order has one; return 0 in the child."""
        order = self._order
        if order["has_other_user"]:
            taken = RunUser()
            taken.own(self._folder / WORK)
            # Other users may pass through the folder of the run, and see nothing else in it.
            self._folder.chmod(0o711)
            for descriptor in self._streams:
                # A command may open `/dev/stdout`.
                os.fchown(descriptor, taken.number, taken.number)
            self._taken = taken
            self._user = taken.number
        if order["bwrap"] is None:
            return os.fork()
        sandbox = Sandbox(order["bwrap"], order["sandbox"])
        self._machinery = sandbox.machinery
        return sandbox.fork()

    def _until_ended(self, deadline: float) -> float:
        """Wait until the run is over; return the time at which its command ended."""
        poll = select.poll()
        poll.register(self._wakeups, select.POLLIN)
        control = select.poll()
        for each in (poll, control):
            each.register(CONTROL, select.POLLIN)
        ended: float | None = None
        while True:
            # Children that end one after the other cause no more samples than the share of the time allows.
            rest_s = self._sample_at - time.monotonic()
            for descriptor, _ in control.poll(rest_s * 1000) if rest_s > 0 else poll.poll(_SAMPLE_S * 1000):
                received = os.read(descriptor, 4096)
                if descriptor == CONTROL:
                    self._obey(received)
                    if not received:
                        self._stop("cancelled", 0.0)
                        poll.unregister(CONTROL)
                        control.unregister(CONTROL)
            now = time.monotonic()
            if ended is None and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ended = now
            others = self._sample(is_running=ended is None) if now >= self._sample_at or ended is not None else []
            # After a stop, all processes have the whole grace time. After an end by itself, the rest is killed at once.
            if ended is not None and (self._stopped is None or not others or now >= self._kill_at):
                return ended
            if now >= deadline:
                self._stop("timeout", GRACE_S)
            if self._lease_until_ms is not None and boot_ms() >= self._lease_until_ms:
                self._stop("lease_lost", 0.0)
            if now >= self._kill_at:
                os.killpg(self._pid, signal.SIGKILL)

    def _obey(self, received: bytes) -> None:
        """Carry out the lines that came over the control pipe."""
        self._controlled += received
        *lines, rest = bytes(self._controlled).split(b"\n")
        self._controlled = bytearray(rest)
        for line in lines:
            word, _, argument = line.partition(b" ")
            if word == b"until":
                self._lease_until_ms = int(argument)
            else:
                self._stop("cancelled", 0.0 if word == b"kill" else GRACE_S)

    def _stop(self, reason: str, grace_s: float, detail: str = "") -> None:
        """Ask the process group to end, and set the time at which it is killed; the first reason counts."""
        if self._stopped is None:
            self._stopped, self._detail = reason, detail
            if not grace_s:
                self._halt()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGTERM if grace_s else signal.SIGKILL)
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def _sample(self, *, is_running: bool) -> list[int]:
        """Reap orphans, stop a run that exceeds its limits, and return its processes except the command."""
        began = time.monotonic()
        pids, threads = self._processes()
        if is_running:
            if threads > self._order["processes"]:
                self._stop_if(self._process_excess, set())
            together = resident_bytes(pids)
            self._most_resident_bytes = max(self._most_resident_bytes, together)
            if uses_more_memory(pids, together, self._order["memory_bytes"]):
                self._stop("memory", 0.0)
            # The first process of a sandbox reaps orphans, and so has their time.
            if cpu_s([*pids, *self._machinery]) > self._order["cpu_seconds"]:
                self._stop("cpu", 0.0)
            if self._watch.looks_full(pids):
                self._stop_if(lambda: self._watch.excess(descendants(os.getpid())), resting())
        now = time.monotonic()
        self._sample_at = now + (now - began) * _REST
        return [pid for pid in pids if pid != self._pid and stat_fields(pid)]

    def _processes(self) -> tuple[list[int], int]:
        """Reap orphans; return the processes of the run and the number of their threads."""
        for pid in children_of(os.getpid()):
            if pid != self._pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        pids, threads = family(os.getpid(), self._order["processes"] + len(self._machinery))
        own = [pid for pid in pids if pid not in self._machinery]
        return own, threads - len(pids) + len(own)

    def _process_excess(self) -> Excess | None:
        most = self._order["processes"]
        if self._processes()[1] <= most:
            return None
        return Excess("processes", f"stopped: it had more than {most} processes and threads")

    def _stop_if(self, excess: Callable[[], Excess | None], resting_ones: set[int]) -> None:
        """Stop the run for what `excess` finds while its processes cannot do anything.

        If that is nothing, they go on, except those that rested before.
        """
        freeze()
        found = excess()
        if found is None:
            thaw(resting_ones)
        else:
            self._stop(found.reason, 0.0, found.detail)

    def _halt(self) -> None:
        """Let the run make no more processes: the kernel ends a sandbox with its first process, others are stopped."""
        if self._machinery:
            signal_all(self._machinery.intersection(descendants(os.getpid())), signal.SIGKILL)
        else:
            freeze()

    def _kill_all(self) -> None:
        """Kill and reap the remaining processes of the run; return when the kernel reports no child.

        An orphaned descendant becomes a child of this process, so "no child" means "no descendant".
        """
        self._halt()
        if self._pid:
            # The command is not reaped yet, so no other process group can have its number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        while True:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
            try:
                while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                    if reaped[0] == self._pid:
                        self._wait_status = reaped[1]
            except ChildProcessError:
                return
            if select.select([self._wakeups], [], [], _SAMPLE_S)[0]:
                os.read(self._wakeups, 4096)


def main(*, is_guarded: bool) -> None:
    """Receive the order, supervise the run, report its end, and remove its folder when the worker closes the pipe.

    Args:
        is_guarded: whether processes of the same user must not read the memory of this one.
    """
    if is_guarded:
        control_process(PR_SET_DUMPABLE, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The worker decides when a run stops. A signal to the whole service reaches the supervisor too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    received = receive_order()
    if received is None:
        return
    order, rest = received
    if not order["is_counted_alone"]:
        come_first()
    try:
        send(SupervisedCommand(order).supervise(rest))
        while os.read(CONTROL, 4096):
            pass
    except BrokenPipeError:
        # The worker is dead: nobody reads the report.
        return
    finally:
        remove_folder(Path(order["folder"]))
