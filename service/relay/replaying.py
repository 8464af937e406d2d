"""Fills a new sink with everything that was delivered before, and holds on through outages of sink and database."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from service.errors import TryLaterError
from service.ports import OutboxRecord, Replays
from service.relay.attempts import RelaySettings
from service.relay.backoff import pause_s
from service.relay.delivery import Delivery
from service.relay.patience import Patience
from service.relay.resending import Held, Resending
from service.relay.state import Progress
from telemetry.delivery.answers import Refused

T = TypeVar("T")


class Watch(Protocol):
    """Is told how a replay goes."""

    def goes_on(self, done: int, total: int) -> None:
        """So many records of the total were sent, those of an earlier run included."""
        ...

    def refused(self, record: OutboxRecord, answer: str) -> None:
        """The sink refuses this record alone, and gets the others."""
        ...


class Replayed(msgspec.Struct, frozen=True):
    """What became of a replay.

    Of `total` records, the sink took `accepted` in this run, and `earlier` ones were sent in earlier runs. In all of
    them it refused `refused` alone. `reason` says why it ended before the end; None when it did not.
    """

    accepted: int
    earlier: int
    total: int
    refused: int
    reason: str | None


class Replaying:
    """One run. A sink or database that fails is tried again, as long as `patience` has."""

    def __init__(
        self,
        replays: Replays,
        delivery: Delivery,
        progress: Progress,
        settings: RelaySettings,
        patience: Patience,
        random: Callable[[], float],
        watch: Watch,
    ) -> None:
        self._replays = replays
        self._progress = progress
        self._patience = patience
        self._random = random
        self._watch = watch
        self._settings = settings
        self._resending = Resending(delivery, settings.max_records, self._is_held, self._is_refused)
        self._accepted = self._refused = self._earlier = self._done = self._total = 0

    def run(self, *, from_start: bool) -> Replayed:
        """Send what is left to send of all that was delivered; a crash sends at most one batch a second time."""
        reason = None
        try:
            begun = self._tried(lambda: self._replays.begin(from_start=from_start))
            self._earlier, self._refused, self._total = begun.earlier, begun.refused, begun.total
            self._done = begun.earlier
            self._watch.goes_on(self._done, self._total)
            while self._sends_batch():
                pass
            self._tried(self._replays.end)
        except _EndedError:
            reason = "a stop was asked for" if self._patience.is_stopped else self._progress.state.error
        return Replayed(self._resending.accepted, self._earlier, self._total, self._refused, reason)

    def _sends_batch(self) -> bool:
        """Send the next batch; False when there is none."""
        records = self._tried(lambda: self._replays.next(self._settings.max_records, self._settings.max_bytes))
        if not records:
            return False
        if self._resending.send(records) is not None:
            raise _EndedError
        self._tried(lambda: self._replays.answered(self._refused))
        self._done += len(records)
        # Relays may have delivered some of them since they were counted.
        self._total = max(self._total, self._done)
        self._patience.gets_on()
        self._progress.flows(max(0, self._total - self._done))
        self._watch.goes_on(self._done, self._total)
        if self._patience.is_stopped:
            raise _EndedError
        return True

    def _is_refused(self, record: OutboxRecord, answer: str) -> None:
        self._refused += 1
        self._watch.refused(record, answer)

    def _is_held(self, answer: Held) -> bool:
        return self._pause(
            answer.error_type, str(answer), answer.retry_after_s if isinstance(answer, Refused) else None
        )

    def _tried(self, task: Callable[[], T]) -> T:
        while True:
            try:
                return task()
            except TryLaterError as error:
                if not self._pause("database", str(error)):
                    raise _EndedError from error

    def _pause(self, kind: str, text: str, retry_after_s: float | None = None) -> bool:
        """Wait after a failure; False when it is given up."""
        if self._resending.accepted > self._accepted:
            self._accepted = self._resending.accepted
            self._patience.gets_on()
            self._progress.gets_on()
        self._progress.fails(kind, text, pause_s(self._progress.state.failures + 1, retry_after_s, self._random))
        return self._patience.pause(self._progress.state.pause_s)


class _EndedError(Exception):
    """The run ends before the end; within this file only."""
