"""Followers of the trail while processes are killed: they continue at any process, behind their last id."""

import http.client
import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.support.follower import RECORD, Follower
from tests.support.poll_until import poll_until


class PersistentFollower:
    """Follows the trail from its beginning until told to stop, and keeps the id of every record that it receives.

    Args:
        urls: of the processes; they may change.
        key: an API key of an auditor.
        query: the filter, which begins with `&`.
        seed: of the processes that it chooses.
        most: after how many records at most it hangs up by itself; 0 for never.
    """

    def __init__(self, urls: Sequence[str], key: str, query: str, seed: int, most: int = 0) -> None:
        self.received: list[str] = []
        self.answered = 0
        self.unanswered = 0
        self._urls = urls
        self._key = key
        self._query = f"&since=2000-01-01{query}"
        self._draw = random.Random(seed)
        self._most = most
        self._last_id: str | None = None
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        if error is None:
            self.require_sound()

    def require_sound(self) -> None:
        """Raise the error that ended it, if one did."""
        if self._failure is not None:
            raise self._failure

    def wait_for(self, count: int) -> None:
        """Wait until it has so many records."""

        def has_them() -> bool:
            self.require_sound()
            return len(self.received) >= count

        poll_until(has_them, f"{count} records", 120)

    def begin_no_other(self) -> None:
        """Let it end with its connection."""
        self._stopping.set()

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._follow_once()
                except (OSError, http.client.HTTPException):
                    self.unanswered += 1
                    self._stopping.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            self._failure = error

    def _follow_once(self) -> None:
        with Follower(self._draw.choice(self._urls), self._key, self._query, self._last_id, patience_s=600) as follower:
            if follower.answer.status == 503:
                self.unanswered += 1
                self._stopping.wait(0.1)
                return
            assert follower.answer.status == 200, follower.answer.read()
            self.answered += 1
            left = self._draw.randrange(1, self._most) if self._most else -1
            for event in follower:
                if event.name == RECORD:
                    self.received.append(event.data["record_id"])
                    left -= 1
                # Only of a whole event: of one that broke off, nothing is kept.
                self._last_id = event.id or self._last_id
                if not left:
                    return
