"""The attempts of a relay: each takes a batch, delivers it, and keeps a failure in the state."""

import enum
import logging
from typing import Final

import msgspec

from service.errors import AuditraceError, TryLaterError
from service.ports import Outbox
from service.relay.delivery import COMPARED, Delivery
from service.relay.leases import Leases
from service.relay.state import DeliveryProgress
from telemetry.delivery.answers import blames_records

_log = logging.getLogger(__name__)

RELEASE_AFTER_FAILURES: Final = 5
"""A relay that fails this often in a row releases its leases, because another one may reach the sink."""


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a relay works."""

    max_records: int = 512
    max_bytes: int = 1024 * 1024
    poll_s: float = 0.5
    """How often it looks for records of other processes; a commit of its own process wakes it."""
    linger_s: float = 0.1
    """How long it lets records gather: a request and a cursor's commit for each record would slow down the lanes."""
    renew_s: float = 2.0


class AttemptResult(enum.Enum):
    """How an attempt ended; `FULL` when there is probably more to deliver at once."""

    IDLE = enum.auto()
    DELIVERED = enum.auto()
    FULL = enum.auto()
    FAILED = enum.auto()


class Attempts:
    """The attempts of one relay, on one thread; `delivered` and `parked` count the records over which cursors moved."""

    def __init__(
        self,
        outbox: Outbox,
        delivery: Delivery,
        leases: Leases,
        progress: DeliveryProgress,
        settings: RelaySettings,
    ) -> None:
        self.delivered = self.parked = 0
        self._outbox = outbox
        self._delivery = delivery
        self._leases = leases
        self._progress = progress
        self._settings = settings
        self._limit = settings.max_records

    def next(self) -> AttemptResult:
        """Deliver one batch; a failure is kept in the state and delays the next attempt."""
        try:
            return self._deliver()
        except AuditraceError as error:
            self.failed(error)
        except Exception as error:  # noqa: BLE001 - a thread that died would deliver nothing any more
            name = f"unexpected {type(error).__name__}"
            if self._progress.failed(name, f"{name}: {error}"):
                _log.exception("the relay goes on after this")
            self._release_if_failing()
        return AttemptResult.FAILED

    def _deliver(self) -> AttemptResult:
        limit = self._limit
        self._delivery.settle()
        records = self._outbox.take(limit, self._settings.max_bytes)
        self._progress.set_parked(self._outbox.parked_count())
        if not records:
            if self._progress.state.error is not None and not self._outbox.backlog():
                self._progress.recovered(0)
            return AttemptResult.IDLE
        outcome = self._delivery.deliver(records)
        self.delivered += outcome.delivered
        self.parked += outcome.parked
        if outcome.parked:
            self._progress.set_parked(self._outbox.parked_count())
        if outcome.held is None:
            self._limit = min(self._settings.max_records, limit * 2)
            size = sum(len(record.log_record) for record in records)
            is_full = len(records) * 2 > limit or size * 2 > self._settings.max_bytes
            self._got_on(is_probing=is_full and self._limit < self._settings.max_records)
            return AttemptResult.FULL if is_full else AttemptResult.DELIVERED
        answer = outcome.held
        # The next attempt is small. A sink may store records and refuse them then, as a collector does whose queue is
        # full behind its archive: it stores them again with every attempt. And on a slow line a large request fails
        # more often. A record that is refused needs some others to be compared with.
        self._limit = 1 + COMPARED if blames_records(answer) else 1
        self._progress.held(answer)
        self._release_if_failing()
        return AttemptResult.FAILED

    def failed(self, error: AuditraceError) -> None:
        """Keep an error of the database in the state."""
        self._progress.failed("database" if isinstance(error, TryLaterError) else error.error_type, str(error))
        self._release_if_failing()

    def _got_on(self, *, is_probing: bool) -> None:
        """Note a success. The outage goes on while requests are smaller than allowed, because the next one may fail."""
        if self._progress.state.failing_since_ns is None:
            return
        left = sum(lag.committed - lag.delivered for lag in self._outbox.backlog())
        if is_probing and left:
            self._progress.progressed()
        else:
            self._progress.recovered(left)

    def _release_if_failing(self) -> None:
        if self._progress.state.failures >= RELEASE_AFTER_FAILURES:
            self._leases.release()
