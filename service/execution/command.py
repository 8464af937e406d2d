"""Turns a forked child of the supervisor into the command: session, signals, descriptors, limits.

It uses only the standard library, because the supervisor imports it.
"""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TypedDict

from service.execution.folder import WORK
from service.execution.procfs import threads_of_user

PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_ROOM_FOR_OTHERS: Final = 1024


class Order(TypedDict):
    """What to run. `lease_until_ms` is the end of the lease on the clock of `boot_ms`; None sets no end.

    `bwrap` is the path of bubblewrap and `sandbox` its options; None makes no sandbox. `has_other_user` gives the run a
    user of its own. `is_guarded` refuses system calls that a command does not need. `is_counted_alone` says that the
    kernel counts the processes of this run and no others: its user, or its user namespace, has no others. The kernel
    then refuses one more than `processes`.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str
    timeout_ms: int
    memory_bytes: int
    cpu_seconds: int
    output_bytes: int
    processes: int
    is_counted_alone: bool
    open_files: int
    folder_bytes: int
    folder_files: int
    lease_until_ms: int | None
    bwrap: str | None
    sandbox: list[str]
    has_other_user: bool
    is_guarded: bool


def become_command(order: Order, streams: Sequence[int], supervisor: int) -> NoReturn:
    """Replace this process, a new fork of the process `supervisor`, by the command.

    Args:
        order: what to run.
        streams: descriptors of the command's standard output and error.
        supervisor: process id of the parent as this process sees it, 0 in a sandbox; its death kills the command.

    Raises:
        OSError: the command does not exist, or the kernel refused a call.
        ValueError: a limit cannot be set, or the supervisor is dead.
    """
    os.setsid()
    control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        raise ValueError("the supervisor was killed")
    control_process(_PR_SET_NO_NEW_PRIVS, 1)
    # Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored after exec.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.chdir(Path(order["folder"], WORK))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, descriptor in enumerate(streams, start=1):
        os.dup2(descriptor, target)
    keep_descriptors()
    # The supervisor samples resident memory. The limit of the address space only stops growth between two samples. It
    # is larger because language runtimes reserve far more address space than they use.
    _limit(resource.RLIMIT_AS, 4 * order["memory_bytes"] + 2**30)
    _limit(resource.RLIMIT_CPU, order["cpu_seconds"], hard_margin=1)
    # One byte more than allowed: a file that reached the limit then differs from a file that just fits.
    _limit(resource.RLIMIT_FSIZE, order["output_bytes"] + 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, order["open_files"])
    # The kernel counts all threads of a user, and does not bind root. With others beside the run this has room for what
    # they start meanwhile, and only bounds what a sample can find.
    others = 0 if order["is_counted_alone"] else threads_of_user(os.getuid()) + _ROOM_FOR_OTHERS
    _limit(resource.RLIMIT_NPROC, order["processes"] + others)
    os.execvpe(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - no shell is the point


def keep_descriptors() -> None:
    """Let no program that this process executes have its descriptors, except the first three."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and entry.is_symlink():
            os.set_inheritable(int(entry.name), False)


def boot_ms() -> int:
    """Return the milliseconds since this machine started. All its processes share the clock; it counts a suspend."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def control_process(option: int, value: int) -> None:
    """Call prctl(2), which is not in the standard library.

    Raises:
        OSError: the kernel refused the call.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _limit(kind: int, soft: int, hard_margin: int = 0) -> None:
    """Set a resource limit of this process, at most the hard limit that it inherited."""
    inherited = resource.getrlimit(kind)[1]
    hard = soft + hard_margin if inherited == resource.RLIM_INFINITY else min(soft + hard_margin, inherited)
    resource.setrlimit(kind, (min(soft, hard), hard))
