"""Keeps secrets of this process from other users of the machine: no core dumps, no passwords in its command line."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.bootstrap.command_args import masked

_PROCESS: Final = Path("/proc/self")
_START_OF_ARGUMENTS: Final = 45
"""The place of `arg_start` behind the name of the program; `arg_end` follows. Source: proc_pid_stat(5)."""


def conceal() -> None:
    """Write no core dumps from now on, and show `***` for secrets in the command line that `ps` prints.

    Until then, for some milliseconds, other users could read the command line: a password belongs into a file
    (`PGPASSFILE`), not there. A system without `/proc` shows the command line unchanged.
    """
    # Soft only: a debugger that is attached on purpose may raise it again.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError, ValueError, IndexError):
        _hide_arguments()


def _hide_arguments() -> None:
    fields = (_PROCESS / "stat").read_text(errors="replace").rpartition(")")[2].split()
    start, end = (int(field) for field in fields[_START_OF_ARGUMENTS : _START_OF_ARGUMENTS + 2])
    shown = (_PROCESS / "cmdline").read_bytes()
    if len(shown) != end - start:
        return
    wanted = b"\0".join(_of_equal_length(argument) for argument in shown.split(b"\0"))
    if wanted != shown:
        memory = os.open(_PROCESS / "mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(memory, wanted, start)
        finally:
            os.close(memory)


def _of_equal_length(argument: bytes) -> bytes:
    text = os.fsdecode(argument)
    without = masked(text)
    return argument if without == text else os.fsencode(without).ljust(len(argument))[: len(argument)]
