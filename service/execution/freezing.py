"""Stops all processes of a run at once, so that none forks while they are killed or counted.

It uses only the standard library, because the supervisor imports it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Final

from service.execution.procfs import children_of, descendants, stat_fields

_MOST_S: Final = 10.0


def come_first() -> None:
    """Let this process run before all ordinary ones if it may (root), so that no number of processes can delay it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def freeze() -> None:
    """Send SIGSTOP to all descendants of this process until no new one is found, for 10 s at most.

    Not promised: a process that another one continues in the same moment goes on. SIGKILL ends it all the same.
    """
    known: set[int] = set()
    until = time.monotonic() + _MOST_S
    is_new = True
    while is_new and time.monotonic() < until:
        is_new = False
        pending = [os.getpid()]
        while pending:
            # Parents first: a stopped one makes no more children while its children are looked for.
            children = children_of(pending.pop())
            signal_all(children, signal.SIGSTOP)
            pending += children
            is_new = is_new or not known.issuperset(children)
            known.update(children)


def resting() -> set[int]:
    """Return the descendants of this process that are stopped."""
    return {pid for pid in descendants(os.getpid()) if stat_fields(pid)[:1] == ["T"]}


def thaw(kept: set[int]) -> None:
    """Let all descendants of this process go on except those in `kept`."""
    signal_all(set(descendants(os.getpid())) - kept, signal.SIGCONT)


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that have ended get none."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
