"""Reads about processes under `/proc` (proc(5)); a process that has ended gives empty answers.

It uses only the standard library, because the supervisor imports it.
"""

import contextlib
import resource
from collections.abc import Iterable, Iterator
from os import sysconf
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PAGE_BYTES: Final = resource.getpagesize()
_TICKS_PER_S: Final = sysconf("SC_CLK_TCK")
_LISTS_CHILDREN: Final = (_PROC / "thread-self" / "children").exists()


def processes() -> Iterator[tuple[int, list[str]]]:
    """Yield every process id with the fields of its `stat`, from the state (field 3) on."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            yield int(entry.name), fields


def stat_fields(pid: int) -> list[str]:
    """Return the fields of a process's `stat` from the state (field 3) on; empty when the process has ended."""
    # The name comes before them in parentheses. It may hold any character, also parentheses.
    return _text(pid, "stat").rpartition(")")[2].split()


def session_of(fields: list[str]) -> int:
    """Return the session (field 6) from the fields of a `stat`."""
    return int(fields[3])


def namespace_of(pid: int) -> str | None:
    """Return the namespace of process ids that a process is in; None when it has ended, or is another user's."""
    try:
        return str((_PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None


def environment_entries(pid: int) -> list[str]:
    """Return the `NAME=value` entries of a process's initial environment; empty when they cannot be read."""
    return _text(pid, "environ").split("\0")


def descendants(root: int) -> list[int]:
    """Return the descendants of `root`, also zombies. A process that is just being forked may be missing."""
    return family(root)[0]


def family(root: int, most: float = float("inf")) -> tuple[list[int], int]:
    """Return the descendants of `root` as `descendants` does, and how many threads they have together.

    Args:
        root: a process.
        most: with more threads than this, the answer may lack further processes.
    """
    found: list[int] = []
    pending = [root]
    threads = 0
    while pending and max(threads, len(found)) <= most:
        pid = pending.pop()
        children, own = _children(pid)
        threads += own if pid != root else 0
        found += children
        pending += children
    return found, max(threads, len(found))


def children_of(pid: int) -> list[int]:
    """Return the children of a process, also zombies."""
    return _children(pid)[0]


def _children(pid: int) -> tuple[list[int], int]:
    """Return the children of a process, and how many threads it has."""
    folder = _PROC / str(pid) / "task"
    try:
        tasks = [task.name for task in folder.iterdir()]
    except OSError:
        return [], 0
    if not _LISTS_CHILDREN:
        # The kernel has no CONFIG_PROC_CHILDREN: look at the parent (field 4) of every process.
        return [child for child, fields in processes() if int(fields[1]) == pid], len(tasks)
    children = [int(child) for task in tasks for child in _text(pid, f"task/{task}/children").split()]
    return children, len(tasks)


def threads_of_user(user: int) -> int:
    """Return how many threads all processes of a user have."""
    threads = 0
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found = (entry / "task").stat()
                threads += found.st_nlink - 2 if found.st_uid == user else 0
    return threads


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of these processes, of the children they waited for, and of those the caller reaped."""
    # Fields 14 to 17: utime, stime, cutime, cstime.
    ticks = sum(int(field) for pid in pids for field in stat_fields(pid)[11:15])
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks / _TICKS_PER_S + reaped.ru_utime + reaped.ru_stime


def peak_bytes(pid: int) -> int:
    """Return the most memory that was resident of a process since it began to execute its program."""
    for line in _text(pid, "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of these processes; a shared page counts once for each process."""
    return sum(_resident_bytes(pid) for pid in pids)


def uses_more_memory(pids: list[int], together_bytes: int, limit_bytes: int) -> bool:
    """Return whether the resident memory of these processes exceeds the limit; a shared page counts once.

    Args:
        pids: the processes.
        together_bytes: the result of `resident_bytes` for them.
        limit_bytes: the limit.
    """
    # The exact sum is slow, and needed only above the limit.
    return together_bytes > limit_bytes and sum(_proportional_bytes(pid) for pid in pids) > limit_bytes


def _resident_bytes(pid: int) -> int:
    numbers = _text(pid, "statm").split()
    return int(numbers[1]) * _PAGE_BYTES if numbers else 0


def _proportional_bytes(pid: int) -> int:
    for line in _text(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return _resident_bytes(pid)


def _text(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - read very often
            return file.read()
    except OSError:
        return ""
