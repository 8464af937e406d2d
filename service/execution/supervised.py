"""A run under its supervisor, as its worker sees it: folder, pipes, what came back, and the end of the supervisor."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from service.execution.artifacts import collect
from service.execution.command import Order
from service.execution.folder import INPUTS, OUTPUTS, WORK, remove_folder
from service.execution.outcome import Reason, RunResult, result_of, start_failed
from service.execution.procfs import environment_entries, processes, session_of
from service.execution.spec import RunSpec
from service.execution.supervisor import SupervisorReport

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUPERVISOR: Final = (
    "import sys; sys.path.append(sys.argv[1]); from service.execution.supervisor import main; main()",
    str(Path(__file__).parents[2]),
)


class SupervisedRun:
    """A run that was started, until its result was taken. `cancel` and `tell` may be called from any thread."""

    def __init__(self, spec: RunSpec) -> None:
        """Start the run in a fresh folder.

        Raises:
            OSError: no folder, pipe or process can be had; nothing is left.
            ValueError: the name of an input is not that of a file.
        """
        self._spec = spec
        self._started = time.monotonic()
        self._pid: int | None = None
        self._received = bytearray()
        self._control_lock = threading.Lock()
        self._cancelled_for: str | None = None
        if spec.workdir_root is not None:
            spec.workdir_root.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="auditrace-run-", dir=spec.workdir_root)).absolute()
        with contextlib.ExitStack() as undo:
            undo.callback(remove_folder, self._folder)
            work = self._folder / WORK
            work.mkdir()
            (work / OUTPUTS).mkdir()
            _write_inputs(work / INPUTS, spec.inputs)
            self._folder_descriptor = _open_folder(self._folder)
            undo.callback(os.close, self._folder_descriptor)
            self._work_descriptor = _open_folder(work)
            undo.callback(os.close, self._work_descriptor)
            self._log = undo.enter_context(tempfile.TemporaryFile(dir=spec.workdir_root))
            self._supervisor = self._start()
            undo.pop_all()
        self._control, self._status = _pipes(self._supervisor)
        # A supervisor that is gone already is found when its status is read.
        with contextlib.suppress(BrokenPipeError):
            _write(self._control, json.dumps(self._order()).encode() + b"\n")
        # A supervisor that stands still must not hold up its worker.
        os.set_blocking(self._control.fileno(), False)

    def result(self, deadline: float | None) -> RunResult | None:
        """Return the result once the supervisor has reported or is gone; None at the deadline."""
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        while True:
            left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left_ms):
                return None
            chunk = os.read(self._status.fileno(), 65536)
            self._received += chunk
            *lines, rest = bytes(self._received).split(b"\n")
            self._received = bytearray(rest)
            for line in lines:
                report: SupervisorReport = json.loads(line)
                if "pid" not in report:
                    return self._conclude(report)
                self._pid = report["pid"]
            if not chunk:
                return self._conclude_without_report()

    def cancel(self, reason: str) -> None:
        """Ask the run to end; the first reason counts."""
        with self._control_lock:
            if self._cancelled_for is not None:
                return
            self._cancelled_for = reason
        self.tell("cancel")

    def tell(self, line: str) -> None:
        """Hand a line to the supervisor, if the run is not over."""
        with self._control_lock:
            if not self._control.closed:
                # One write takes a short line as a whole or not at all.
                with contextlib.suppress(BrokenPipeError, BlockingIOError):
                    os.write(self._control.fileno(), f"{line}\n".encode())

    def _start(self) -> "subprocess.Popen[bytes]":
        inherited = () if self._spec.owner_descriptor is None else (self._spec.owner_descriptor,)
        # The supervisor keeps the worker's environment: its interpreter may need variables to find its libraries.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", *_SUPERVISOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            pass_fds=inherited,
            cwd="/",
            # A Ctrl-C at the worker's terminal is the worker's to decide about.
            start_new_session=True,
        )

    def _order(self) -> Order:
        spec, work = self._spec, str(self._folder / WORK)
        environment = {
            "PATH": DEFAULT_PATH,
            **spec.environment,
            "HOME": work,
            "TMPDIR": work,
            "TRACEPARENT": spec.traceparent,
            "AUDITRACE_JOB_ID": spec.job_id,
            "AUDITRACE_RUN": str(spec.run),
            "AUDITRACE_TEMPLATE": spec.template,
        }
        if spec.tracestate:
            environment["TRACESTATE"] = spec.tracestate
        return {
            "argv": list(spec.argv),
            "environment": environment,
            "folder": str(self._folder),
            "timeout_ms": spec.timeout_ms,
            "memory_bytes": spec.limits.memory_bytes,
            "cpu_seconds": spec.limits.cpu_seconds,
            "output_bytes": spec.limits.output_bytes,
            "lease_until_ms": spec.lease_until_ms,
        }

    def _conclude(self, report: SupervisorReport) -> RunResult:
        collected = collect(
            self._folder_descriptor,
            self._work_descriptor,
            max_artifact_bytes=self._spec.max_artifact_bytes,
            max_total_bytes=self._spec.limits.output_bytes,
        )
        self._release()
        return result_of(
            report,
            collected,
            self._spec.limits,
            timeout_ms=self._spec.timeout_ms,
            cancelled_for=self._cancelled_for or Reason.CANCELLED.value,
        )

    def _conclude_without_report(self) -> RunResult:
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        if self._pid is None:
            self._release()
            return start_failed(f"the supervisor could not work: {said or 'it was killed'}")
        _kill_survivors(self._pid, f"HOME={self._folder / WORK}")
        self._release()
        return RunResult(
            reason=Reason.SUPERVISOR_LOST,
            error_type=Reason.SUPERVISOR_LOST.value,
            detail=f"the supervisor was lost, and the run was killed: {said or 'it was killed'}",
            duration_ms=round((time.monotonic() - self._started) * 1000),
        )

    def _release(self) -> None:
        """Let the supervisor go, which removes the folder; remove it here when the supervisor is lost."""
        os.close(self._folder_descriptor)
        os.close(self._work_descriptor)
        with self._control_lock:
            self._control.close()
        self._supervisor.wait()
        self._status.close()
        self._log.close()
        remove_folder(self._folder)


def _write_inputs(folder: Path, inputs: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, payload in inputs.items():
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file")
        (folder / name).write_bytes(payload)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the supervisor is started with two pipes")
    return process.stdin, process.stdout


def _write(pipe: IO[bytes], message: bytes) -> None:
    while message:
        message = message[os.write(pipe.fileno(), message) :]


def _kill_survivors(session: int, entry: str) -> None:
    """Kill the processes of a run whose supervisor is gone: those in its session, and those with its environment."""
    while True:
        survivors = [
            pid
            for pid, fields in processes()
            if fields[0] != "Z" and (session_of(fields) == session or entry in environment_entries(pid))
        ]
        if not survivors:
            return
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.01)
