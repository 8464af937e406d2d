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


class Entry(msgspec.Struct, Generic[T], eq=False):
    """One piece of work and who waits for it; `tries` counts the times it had to be put off."""

    work: Callable[[T], Any]
    future: Future[Any]
    tries: int = 0


class WorkQueue(Generic[T]):
    """A queue that lanes take groups from; what was put off stands in it beside what is new."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: deque[Entry[T]] = deque()
        self._is_closed = False

    def put(self, entry: Entry[T]) -> None:
        """Add new work; its future fails at once when no more is taken."""
        with self._changed:
            if not self._is_closed:
                self._entries.append(entry)
                self._changed.notify()
                return
        entry.future.set_exception(ShuttingDownError("the service is stopping"))

    def put_off(self, entries: Iterable[Entry[T]]) -> None:
        """Put work back behind what waits already; to be called by a lane, which looks here again before it ends."""
        with self._changed:
            for entry in entries:
                entry.tries += 1
                self._entries.append(entry)
                self._changed.notify()

    def put_back(self, entries: Sequence[Entry[T]]) -> None:
        """Put work back to where it was taken from."""
        with self._changed:
            self._entries.extendleft(reversed(entries))
            self._changed.notify()

    def take(self, most: int, timeout_s: float) -> Sequence[Entry[T]] | None:
        """Return what waits, at most `most`; work that was put off comes alone.

        Empty when nothing came in time, None once the queue is closed and nothing is left.
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
        """Take no more new work."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
