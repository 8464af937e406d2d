"""Requests that wait for the end of a job: they hold no thread and no database connection, and delay no stop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeAlias, cast

from litestar.types import Receive

from service.errors import AuditraceError, TryLaterError
from service.jobs.model import JobId, TenantId
from service.ports import Reads

MAX_WAIT_MS: Final = 60_000
MAX_WAITING: Final = 256
"""How many requests of a process may wait at a time."""
MAX_OF_ONE_ACTOR: Final = 64
POLL_S: Final = 1.0
"""How long to wait for a hint before a look at the jobs: not every store tells of the commits of other processes."""

WaitingActor: TypeAlias = tuple[TenantId, str | None, str]
"""Tenant, issuer and id."""

# Commits within this time are one hint.
_SETTLE_S: Final = 0.05
_AGAIN_S: Final = 5


class JobWaits:
    """The waiting requests of a process. While there are some, one task watches all of their jobs.

    All methods but `wake` are for the event loop that serves requests.
    """

    def __init__(self, reads: Reads, *, poll_s: float = POLL_S, max_waiting: int = MAX_WAITING) -> None:
        self._reads = reads
        self._poll_s = poll_s
        self._max_waiting = max_waiting
        self._waits: dict[JobId, set[asyncio.Future[None]]] = {}
        self._actors: Counter[WaitingActor] = Counter()
        self._hint = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_released = False

    @property
    def count(self) -> int:
        """How many requests wait now."""
        return self._actors.total()

    async def until_final(
        self, job_id: JobId, actor: WaitingActor, seconds: float, receive: Receive, is_final: Callable[[], bool]
    ) -> None:
        """Return when the job is final or gone, the time is over, the client disconnected, or the process stops.

        Args:
            job_id: the job.
            actor: tenant, issuer and id of the waiting actor.
            seconds: how long at most.
            receive: of the request; nothing else may read from it any more.
            is_final: reads whether the job is final; called in a thread after the wait is registered.

        Raises:
            TryLaterError: too many requests wait already, or the job cannot be read.
        """
        with self._waiting(job_id, actor) as end:
            if self._is_released or await asyncio.to_thread(is_final):
                return
            gone = asyncio.ensure_future(_hung_up(receive))
            try:
                await asyncio.wait({end, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()

    def wake(self) -> None:
        """Hint that something was committed; from any thread, never blocks."""
        loop = self._loop
        if loop is None or not self._waits:
            return
        try:
            loop.call_soon_threadsafe(self._hint.set)
        except RuntimeError:
            # The loop has ended, and all waits with it.
            return

    def release(self) -> None:
        """End all waits, later ones included: the process is about to stop."""
        self._is_released = True
        for job_id in list(self._waits):
            self._end(job_id)

    @contextmanager
    def _waiting(self, job_id: JobId, actor: WaitingActor) -> Generator[asyncio.Future[None]]:
        if self.count >= self._max_waiting or self._actors[actor] >= MAX_OF_ONE_ACTOR:
            raise TryLaterError("too many requests wait for jobs: ask again later, or without wait", _AGAIN_S)
        self._loop = asyncio.get_running_loop()
        end = self._loop.create_future()
        self._waits.setdefault(job_id, set()).add(end)
        self._actors[actor] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield end
        finally:
            end.cancel()
            self._waits[job_id].discard(end)
            if not self._waits[job_id]:
                del self._waits[job_id]
            self._actors -= Counter([actor])

    async def _look(self) -> None:
        """End the waits for jobs that are final, until nobody waits any more."""
        while self._waits:
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._hint.wait()
                await asyncio.sleep(_SETTLE_S)
            except TimeoutError:
                pass
            self._hint.clear()
            for job_id in await asyncio.to_thread(self._final, list(self._waits)):
                self._end(job_id)

    def _final(self, job_ids: list[JobId]) -> list[JobId]:
        try:
            found = [(job_id, self._reads.job(job_id, None)) for job_id in job_ids]
        except AuditraceError:
            # Each waiting request reads the job itself at the end of its time, and gets the error then.
            return []
        return [job_id for job_id, job in found if job is None or job.status.is_final]

    def _end(self, job_id: JobId) -> None:
        for end in self._waits.get(job_id, ()):
            if not end.done():
                end.set_result(None)


async def _hung_up(receive: Receive) -> None:
    """Return when the client has disconnected; the rest of a body is discarded."""
    while cast("str", (await receive())["type"]) != "http.disconnect":
        pass
