"""Starts the processes of the tests: none depends on what the test run inherited, and none outlives it.

`subprocess.run` is for commands that end by themselves; whatever runs on is started here (`tests/checks.py` looks).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

Process: TypeAlias = "subprocess.Popen[Any]"

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
    process = _STARTER.submit(subprocess.Popen, owned, **options).result()
    _started.append(process)
    return process


def mark() -> int:
    """Return a mark that `left_since` takes."""
    return len(_started)


def left_since(since: int) -> list[Process]:
    """Return the processes that were started since the mark and still run."""
    return [process for process in _started[since:] if process.poll() is None]


def _found(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"the tests need `{program}`: install util-linux and coreutils"
    return path


_OWNED = (_found("setpriv"), "--pdeathsig=KILL", "--", _found("env"), "--default-signal", "--")
