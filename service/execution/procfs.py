"""What the kernel says about processes under `/proc` (proc(5)); a process that is gone counts as nothing.

Standard library alone: the supervisor imports it.
"""

import resource
from collections.abc import Iterable, Iterator
from os import sysconf
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PAGE_BYTES: Final = resource.getpagesize()
_TICKS_PER_S: Final = sysconf("SC_CLK_TCK")


def processes() -> Iterator[tuple[int, list[str]]]:
    """Yield every process with the fields of its `stat`, from the state (field 3) on."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            yield int(entry.name), fields


def stat_fields(pid: int) -> list[str]:
    """Return the fields of a process's `stat` from the state (field 3) on; empty when it is gone."""
    # The name before them is in parentheses and may hold anything, parentheses too.
    return _text(pid, "stat").rpartition(")")[2].split()


def session_of(fields: list[str]) -> int:
    """Return the session (field 6) among the fields of a `stat`."""
    return int(fields[3])


def environment_entries(pid: int) -> list[str]:
    """Return the `NAME=value` entries that a process was executed with; empty when they cannot be read."""
    return _text(pid, "environ").split("\0")


def descendants(root: int) -> list[int]:
    """Return the processes below `root`, zombies too; one that is being forked at this moment may be missed."""
    found: list[int] = []
    pending = [root]
    while pending:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            children += [int(child) for child in (task / "children").read_text("ascii").split()]
    except FileNotFoundError:
        if (_PROC / "thread-self" / "children").exists():
            return children
        # A kernel without CONFIG_PROC_CHILDREN: ask every process for its parent (field 4).
        return [child for child, fields in processes() if int(fields[1]) == pid]
    except OSError:
        return children
    return children


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of these processes, of those they waited for, and of those that the caller reaped."""
    # Fields 14 to 17: utime, stime, cutime, cstime.
    ticks = sum(int(field) for pid in pids for field in stat_fields(pid)[11:15])
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks / _TICKS_PER_S + reaped.ru_utime + reaped.ru_stime


def uses_more_memory(pids: list[int], limit_bytes: int) -> bool:
    """True when the resident memory of these processes, shared pages counted once, exceeds the limit."""
    # This sum counts shared pages once each; only beyond the limit the exact share is worth its price.
    if sum(_resident_bytes(pid) for pid in pids) <= limit_bytes:
        return False
    return sum(_proportional_bytes(pid) for pid in pids) > limit_bytes


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
        return (_PROC / str(pid) / name).read_text("utf-8", "replace")
    except OSError:
        return ""
