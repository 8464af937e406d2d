"""Sends everything that was delivered before to a new sink, and tries on when sink or database fail."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from service.errors import TryLaterError
from service.ports import OutboxRecord, ReplayBegun, Replays
from service.relay.attempts import RelaySettings
from service.relay.delivery import Delivery, RefusedAlone
from service.relay.stall_timeout import StallTimeout
from service.relay.state import DeliveryProgress
from telemetry.delivery.answers import Accepted

T = TypeVar("T")


class ReplayObserver(Protocol):
    """Takes what happens in a replay, to show it."""

    def progressed(self, done: int, total: int) -> None:
        """Note that so many records of the total were sent, those of an earlier run included."""
        ...

    def refused(self, record: OutboxRecord, answer: str) -> None:
        """Note that the sink refuses this record alone; the others are sent."""
        ...


class Replayed(msgspec.Struct, frozen=True):
    """The result of a replay.

    Of `total` records, the sink accepted `accepted` in this run, and `earlier` ones were sent in earlier runs. In all
    runs it refused `refused` alone. `reason` says why the run ended before all was sent; None when all was sent.
    """

    accepted: int
    earlier: int
    total: int
    refused: int
    reason: str | None


class Replaying:
    """One run. A sink or database that fails is tried again, until `timeout` ends."""

    def __init__(
        self,
        replays: Replays,
        delivery: Delivery,
        progress: DeliveryProgress,
        settings: RelaySettings,
        timeout: StallTimeout,
        observer: ReplayObserver,
    ) -> None:
        self._replays = replays
        self._delivery = delivery
        self._progress = progress
        self._timeout = timeout
        self._observer = observer
        self._settings = settings
        self._limit = settings.max_records
        self._accepted = self._refused = self._earlier = self._done = self._total = 0

    def run(self, record: Callable[[ReplayBegun], object], *, from_start: bool) -> Replayed:
        """Send the delivered records that were not sent yet; after a crash at most one batch is sent a second time.

        Args:
            record: commits the record of what is going to be sent. It is called before anything is sent.
            from_start: begin at the first record.
        """
        reason = None
        try:
            begun = self._tried(lambda: self._replays.begin(from_start=from_start))
            self._earlier, self._refused, self._total = begun.earlier, begun.refused, begun.total
            self._done = begun.earlier
            self._tried(lambda: record(begun))
            self._observer.progressed(self._done, self._total)
            while self._sends_batch():
                pass
            self._tried(self._replays.end)
        except _EndedError:
            reason = "a stop was asked for" if self._timeout.is_stopped else self._progress.state.error
        return Replayed(self._accepted, self._earlier, self._total, self._refused, reason)

    def _sends_batch(self) -> bool:
        """Send the next batch; False when there is none."""
        records = self._tried(lambda: self._replays.next(self._settings.max_records, self._settings.max_bytes))
        if not records:
            return False
        self._send(records)
        self._tried(lambda: self._replays.answered(self._refused))
        self._done += len(records)
        # Relays may have delivered some of them since they were counted.
        self._total = max(self._total, self._done)
        self._timeout.progressed()
        self._progress.recovered(max(0, self._total - self._done))
        self._observer.progressed(self._done, self._total)
        if self._timeout.is_stopped:
            raise _EndedError
        return True

    def _send(self, records: Sequence[OutboxRecord]) -> None:
        """Send records until the sink has answered for each of them."""
        while records:
            sent = 0
            for part, answer in self._delivery.answers(records, lambda: self._limit):
                if isinstance(answer, Accepted):
                    self._accepted += len(part)
                    self._timeout.progressed()
                    self._progress.progressed()
                    self._limit = min(self._settings.max_records, self._limit * 2)
                elif isinstance(answer, RefusedAlone):
                    self._refused += 1
                    self._observer.refused(part[0], str(answer.answer))
                else:
                    self._progress.held(answer)
                    self._pause()
                    # A small request, as after any failure: what is refused after it was stored is stored again.
                    self._limit = 1
                    break
                sent += len(part)
            records = records[sent:]

    def _tried(self, task: Callable[[], T]) -> T:
        while True:
            try:
                return task()
            except TryLaterError as error:
                self._progress.failed("database", str(error))
                self._pause()

    def _pause(self) -> None:
        if not self._timeout.pause(self._progress.state.pause_s):
            raise _EndedError


class _EndedError(Exception):
    """The run ends before all was sent; never leaves this file."""
