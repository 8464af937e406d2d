"""Starts a run under its supervisor, controls it, and returns its result.

The supervisor (`service/execution/supervisor.py`) does what a process with threads must not do, and what is needed
after the worker has died. A run cannot gain privileges, so programs such as `sudo` fail in it.

A command is a stranger: `service/execution/isolation.py` has what keeps it from the worker. Without isolation both run
as the same user, and the command can read everything that the worker can read.
"""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from service.execution.artifacts import collect
from service.execution.control import SupervisorReport
from service.execution.folder import INPUTS, OUTPUTS, WORK, remove_folder
from service.execution.outcome import Reason, RunResult, result_of, start_failed
from service.execution.procfs import environment_entries, namespace_of, processes, session_of
from service.execution.spec import RunSpec, order_of
from service.execution.users import user_of

_SUPERVISOR: Final = (
    (
        "import sys; sys.path.append(sys.argv[1]); from service.execution.supervisor import main; "
        "main(is_guarded=sys.argv[2] == 'guarded')"
    ),
    str(Path(__file__).parents[2]),
)


class SupervisedRun:
    """A run in progress. It ends when this process ends, also by SIGKILL.

    `cancel`, `kill` and `extend` may be called from any thread. They return at once, and do nothing after the end.
    """

    def __init__(self, spec: RunSpec) -> None:
        """Start the run in a new folder.

        Raises:
            OSError: a folder, pipe or process could not be made; nothing is left of the run.
            ValueError: the name of an input is not a file name.
        """
        self._spec = spec
        self._started = time.monotonic()
        self._control_lock = threading.Lock()
        self._cancelled_for: str | None = None
        _make_root(spec)
        self._folder = Path(tempfile.mkdtemp(prefix="auditrace-run-", dir=spec.root)).absolute()
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
            self._log = undo.enter_context(tempfile.TemporaryFile(dir=spec.root))
            self._supervisor = self._start()
            undo.pop_all()
        self._control, self._status = _pipes(self._supervisor)
        # `wait` finds out when the supervisor is already dead.
        with contextlib.suppress(BrokenPipeError):
            _write(self._control, json.dumps(order_of(spec, self._folder)).encode() + b"\n")
        # The worker must not block when its supervisor hangs.
        os.set_blocking(self._control.fileno(), False)

    def wait(self) -> RunResult:
        """Return the result when the run has ended and nothing of it is left; to be called once."""
        begun: SupervisorReport | None = None
        for line in self._status:
            if not line.endswith(b"\n"):
                # The supervisor was killed while it wrote.
                break
            report: SupervisorReport = json.loads(line)
            if "pid" not in report:
                return self._conclude(report, begun)
            begun = report
        return self._conclude_without_report(begun)

    def cancel(self, reason: str) -> None:
        """Ask the run to end: SIGTERM to its process group, SIGKILL after 5 s.

        The first `reason` counts, and becomes the `error_type`.
        """
        with self._control_lock:
            self._cancelled_for = self._cancelled_for or reason
        self._tell("cancel")

    def kill(self) -> None:
        """Kill the run at once, after `cancel` has asked it to end."""
        self._tell("kill")

    def extend(self, lease_until_ms: int) -> None:
        """Set a new end of the lease. A supervisor that something stopped (SIGSTOP) is killed, and the run with it.

        While it is stopped, nothing keeps the limits of the run.
        """
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, self._supervisor.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
                self._supervisor.kill()
        self._tell(f"until {lease_until_ms}")

    def _tell(self, line: str) -> None:
        with self._control_lock:
            if not self._control.closed:
                # One write sends a short line as a whole or not at all.
                with contextlib.suppress(BrokenPipeError, BlockingIOError):
                    os.write(self._control.fileno(), f"{line}\n".encode())

    def _start(self) -> "subprocess.Popen[bytes]":
        inherited = () if self._spec.owner_descriptor is None else (self._spec.owner_descriptor,)
        guard = "guarded" if self._spec.confinement.is_guarded else "open"
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", *_SUPERVISOR, guard],
            env=self._spec.supervisor_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            pass_fds=inherited,
            cwd="/",
            # In a session of its own it gets no Ctrl-C from the worker's terminal. The worker decides about that.
            start_new_session=True,
        )

    def _conclude(self, report: SupervisorReport, begun: SupervisorReport | None) -> RunResult:
        spec = self._spec
        user = None if begun is None else begun.get("user")
        collected = collect(
            self._folder_descriptor,
            self._work_descriptor,
            owner=os.geteuid() if user is None else user,
            max_artifact_bytes=spec.max_artifact_bytes,
            max_total_bytes=spec.limits.output_bytes,
        )
        self._release()
        cancelled_for = self._cancelled_for or Reason.CANCELLED.value
        return result_of(report, collected, spec.limits, timeout_ms=spec.timeout_ms, cancelled_for=cancelled_for)

    def _conclude_without_report(self, begun: SupervisorReport | None) -> RunResult:
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        if begun is None:
            self._release()
            return start_failed(f"the supervisor could not work: {said or 'it was killed'}")
        _kill_survivors(begun, f"HOME={self._folder / WORK}")
        self._release()
        return RunResult(
            reason=Reason.SUPERVISOR_LOST,
            error_type=Reason.SUPERVISOR_LOST.value,
            detail=f"the supervisor was lost, and the run was killed: {said or 'it was killed'}",
            duration_ms=round((time.monotonic() - self._started) * 1000),
        )

    def _release(self) -> None:
        """Close the control pipe, so that the supervisor removes the folder; remove it here if the supervisor died."""
        os.close(self._folder_descriptor)
        os.close(self._work_descriptor)
        with self._control_lock:
            self._control.close()
        self._supervisor.wait()
        self._status.close()
        self._log.close()
        remove_folder(self._folder)


def _make_root(spec: RunSpec) -> None:
    """Make the folder of all runs; without `workdir_root` it lies where others could have made it before."""
    for folder in reversed([spec.root, *spec.root.parents]):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            # Not for all to list, but the users of runs go through it, whatever the umask is.
            folder.chmod(0o711)
    if spec.workdir_root is not None:
        return
    found = spec.root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OSError(f"{spec.root} is not a folder that only this user can write: remove it")


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


def _kill_survivors(begun: SupervisorReport, entry: str) -> None:
    """Kill the processes that a dead supervisor left.

    They are those in the run's session, in its sandbox, of its user, or with its environment.
    """

    def belongs(pid: int, fields: list[str]) -> bool:
        return (
            session_of(fields) == begun.get("pid")
            or (begun.get("namespace") is not None and namespace_of(pid) == begun.get("namespace"))
            or (begun.get("user") is not None and user_of(pid) == begun.get("user"))
            or entry in environment_entries(pid)
        )

    while True:
        survivors = [pid for pid, fields in processes() if fields[0] != "Z" and belongs(pid, fields)]
        if not survivors:
            return
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.01)
