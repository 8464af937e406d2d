"""The work that waits for a lane, shared by all lanes of a process."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import msgspec

from service.errors import ShuttingDownError
from service.store.writing import LedgerTransaction

T = TypeVar("T", bound=LedgerTransaction)


class QueuedWork(msgspec.Struct, Generic[T], eq=False):
    """One piece of work and the future of its caller; `tries` counts how often it was put off."""

    work: Callable[[T], Any]
    future: Future[Any]
    tries: int = 0


class WorkQueue(Generic[T]):
    """A queue from which lanes take groups; it holds new work, and work that was put off."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: deque[QueuedWork[T]] = deque()
        self._is_closed = False

    def put(self, entry: QueuedWork[T]) -> None:
        """Add new work; its future fails at once if the queue is closed."""
        with self._changed:
            if not self._is_closed:
                self._entries.append(entry)
                self._changed.notify()
                return
        entry.future.set_exception(ShuttingDownError("the service is stopping"))

    def put_off(self, entries: Iterable[QueuedWork[T]]) -> None:
        """Put work back at the end of the queue; only for lanes, because a lane takes all work before it ends."""
        with self._changed:
            for entry in entries:
                entry.tries += 1
                self._entries.append(entry)
                self._changed.notify()

    def put_back(self, entries: Sequence[QueuedWork[T]]) -> None:
        """Put work back at the front of the queue, from where it was taken."""
        with self._changed:
            self._entries.extendleft(reversed(entries))
            self._changed.notify()

    def take(self, most: int, timeout_s: float) -> Sequence[QueuedWork[T]] | None:
        """Return at most `most` waiting entries; an entry that was put off is returned alone.

        The result is empty if no work came in time, and None if the queue is closed and empty.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._entries:
                if self._is_closed:
                    return None
                if not self._changed.wait(deadline - time.monotonic()):
                    return ()
            group = [self._entries.popleft()]
            while group[0].tries == 0 and self._entries and len(group) < most and self._entries[0].tries == 0:
                group.append(self._entries.popleft())
            return group

    def close(self) -> None:
        """Refuse new work from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
