"""Starts the processes of the tests: none depends on what the test run inherited, and none outlives it.

`subprocess.run` is for commands that end by themselves; whatever runs on is started here (`tests/checks.py` looks).
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any


class Process(subprocess.Popen[Any]):
    """A process that is killed at once when its `with` block fails, instead of waited for."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the end of the process, as at the end of any such block."""
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, trace)


# The kernel ends a child when the thread that started it ends: hence one thread that lives as long as the test run.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starter")
_started: list[Process] = []


def start_process(command: Sequence[str | Path], **options: Any) -> Process:
    """Start a process with every signal at its default and unblocked; it is killed when the test run ends.

    Args:
        command: the program's absolute path, or a name on this process's path, and its arguments.
        options: as `subprocess.Popen` takes them.
    """
    program, *arguments = map(os.fspath, command)
    owned = [*_OWNED, shutil.which(program) or program, *arguments]
    process = _STARTER.submit(Process, owned, **options).result()
    _started.append(process)
    return process


def heeds(process: Process, number: signal.Signals) -> bool:
    """Tell whether the process has a handler for this signal yet; before, the signal ends it as it ends any program."""
    (caught,) = re.findall(r"SigCgt:\t(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return bool(int(caught, 16) & 1 << number - 1)


def pause(process: Process, database: str) -> None:
    """Stop a process with SIGSTOP, at a moment when it does not hold an embedded database's lock to write.

    With that lock it would hold up every other process until it goes on: true of SQLite, but not what is tested.
    """
    while True:
        process.send_signal(signal.SIGSTOP)
        # Only then all of it stands still.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if not database.startswith("sqlite:///") or _can_be_written(Path(database.removeprefix("sqlite:///"))):
            return
        process.send_signal(signal.SIGCONT)


def _can_be_written(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


def mark() -> int:
    """Return a mark that `left_since` takes."""
    return len(_started)


def outlives_tests(since: int) -> None:
    """Leave to their fixture the processes that were started since the mark: they are of more than one test."""
    del _started[since:]


def left_since(since: int) -> list[Process]:
    """Return the processes that were started since the mark and still run."""
    return [process for process in _started[since:] if process.poll() is None]


def _found(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"the tests need `{program}`: install util-linux and coreutils"
    return path


_OWNED = (_found("setpriv"), "--pdeathsig=KILL", "--", _found("env"), "--default-signal", "--")
