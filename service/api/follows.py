"""The follows of a process: they share the looks for new records, and hold no thread or session while they wait."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from service.api.at_once import AtOnce, InProgress
from service.errors import AuditraceError, LedgerUnavailableError, ShuttingDownError
from service.ports import FollowedRecord, Reads, RecordFilter, TrailPosition

_log = logging.getLogger(__name__)

MAX_FOLLOWS: Final = 128
"""How many follows a process serves at a time."""
MAX_FOLLOWS_OF_ONE_ACTOR: Final = 16
PAGE: Final = 50
"""How many records of a follow are in memory at a time."""
POLL_S: Final = 1.0
"""How long to wait for a hint before a look at the ledger: not every store tells of the commits of other processes."""

# Commits within this time are one hint.
_SETTLE_S: Final = 0.05
# So that follows leave threads and sessions to other requests.
_READS_AT_ONCE: Final = 2


class Follows:
    """The follows of a process. While there are some, one task looks for the newest record for all of them.

    A follow lasts as long as the task of its request. All methods but `wake` are for the event loop that serves
    requests.
    """

    def __init__(self, reads: Reads, *, poll_s: float = POLL_S, max_follows: int = MAX_FOLLOWS) -> None:
        self._reads = reads
        self._poll_s = poll_s
        self._at_once = AtOnce("follows of the audit trail", max_follows, MAX_FOLLOWS_OF_ONE_ACTOR)
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)
        self._hint = asyncio.Event()
        self._news = asyncio.Event()
        self._newest: TrailPosition | None = None
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_released = False

    @property
    def count(self) -> int:
        """How many follows there are now."""
        return self._at_once.held

    @property
    def news(self) -> asyncio.Event:
        """Is set when there are records that were not there when this was asked for, and when all follows end."""
        return self._news

    def admit(self, request: InProgress) -> None:
        """Count a follow until the task of its request is done.

        Raises:
            TooManyAtOnceError: its actor has too many.
            TryLaterError: there are too many, or the process is stopping.
        """
        if self._is_released:
            raise _stopping()
        self._at_once.admit(request)
        if self._looking is None or self._looking.done():
            self._loop = asyncio.get_running_loop()
            self._newest = None
            self._looking = asyncio.create_task(self._look())

    async def page(self, where: RecordFilter, behind: TrailPosition) -> tuple[Sequence[FollowedRecord], TrailPosition]:
        """Return the next records that match, at most `PAGE`, and the position up to which they are all.

        Raises:
            TryLaterError: the trail cannot be read, or the process is stopping.
        """
        if self._is_released:
            raise _stopping()
        if self._looking is None or self._looking.done():
            raise LedgerUnavailableError("the audit trail cannot be read")
        newest = self._newest
        if newest is None or newest <= behind:
            return (), behind
        async with self._reading:
            found = await asyncio.to_thread(self._reads.followed, where, behind, newest, PAGE)
        return found, found[-1].position if len(found) == PAGE else newest

    def wake(self) -> None:
        """Hint that something was committed; from any thread, never blocks."""
        loop = self._loop
        if loop is None or not self.count:
            return
        # Else the loop has ended, and all follows with it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._hint.set)

    def release(self) -> None:
        """End all follows, and refuse new ones: the process is about to stop."""
        self._is_released = True
        self._tell()

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()

    async def _look(self) -> None:
        """Look for the newest record after each hint, until nobody follows any more, or it cannot be read."""
        try:
            while self.count:
                self._hint.clear()
                newest = await asyncio.to_thread(self._reads.newest_position)
                # It can be before the last one while a lane of PostgreSQL is stuck.
                if self._newest is None or self._newest < newest:
                    self._newest = newest
                    self._tell()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._hint.wait()
                    await asyncio.sleep(_SETTLE_S)
        except AuditraceError as error:
            _log.warning("the follows of the audit trail end, because it cannot be read: %s", error)
        finally:
            self._tell()


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("the process is stopping: follow the trail again")
