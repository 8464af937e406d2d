"""Answers monitoring from threads of its own, once for all who ask at the same time.

So readiness and metrics are answered when all other threads are busy, and a flood of such requests costs one read at a
time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

R = TypeVar("R")

_THREADS: Final = 2


class Monitoring:
    """The work of monitoring that is in progress. For one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="monitoring")
        self._running: dict[Callable[[], Any], asyncio.Future[Any]] = {}

    async def ask(self, work: Callable[[], R]) -> R:
        """Return the result of `work` in a thread; of the work that is in progress, if it was asked for already."""
        running: asyncio.Future[R] | None = self._running.get(work)
        if running is None:
            running = self._running[work] = asyncio.get_running_loop().run_in_executor(self._threads, work)
            running.add_done_callback(lambda _: self._running.pop(work))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Wait until the work in progress has ended; no more is taken."""
        self._threads.shutdown()
