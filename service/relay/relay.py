"""The relay's thread: takes what is committed, delivers it, and holds on through outages of sink and database."""

import enum
import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from service.errors import AuditraceError, TryLaterError
from service.ports import Clock, Outbox
from service.relay.backoff import pause_s
from service.relay.delivery import COMPARED, Delivery
from service.relay.redelivery import Redelivered, replay, retry_parked
from service.relay.state import Progress, RelayState
from service.relay.stopping import Farewell
from telemetry.delivery import Refused, Sink, blames_records
from telemetry.instruments import Instruments

_log = logging.getLogger(__name__)

RELEASE_AFTER_FAILURES: Final = 5
"""A relay that fails this often in a row gives its leases back: another one may reach the sink."""


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a relay works."""

    max_records: int = 512
    max_bytes: int = 1024 * 1024
    poll_s: float = 0.5
    """How often it looks for records of other processes; those of its own wake it."""
    linger_s: float = 0.1
    """How long it lets records gather: a request and a cursor's commit for each would slow down the lanes."""
    renew_s: float = 2.0


class _Step(enum.Enum):
    IDLE = enum.auto()
    DELIVERED = enum.auto()
    FULL = enum.auto()
    FAILED = enum.auto()


class Relay:
    """A process's relay: one thread that delivers, one that renews the leases of what is being delivered.

    No client ever waits for it: it reads what lanes committed, and holds the database's writer only to move cursors.
    It never gives up on a record, and at most one batch is in memory.
    """

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        settings: RelaySettings,
        instruments: Instruments,
        clock: Clock,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._delivery = Delivery(outbox, sink, instruments, monotonic)
        self._progress = Progress(sink.address, clock)
        self._limit = settings.max_records
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._grace_s = 0.0
        self._is_drained = False
        self._threads = [
            threading.Thread(target=self._serve, name="relay", daemon=True),
            threading.Thread(target=self._renew, name="relay-lease", daemon=True),
        ]

    def start(self) -> None:
        """Start to deliver."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that something was committed; cheap, from any thread."""
        self._wake.set()

    def stop(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and end; True when nothing was left.

        What is left stays in the outbox for the next relay. Returns in time also while an answer is outstanding; its
        request counts as unanswered.
        """
        self._grace_s = grace_s
        deadline = self._monotonic() + grace_s
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - self._monotonic()) + 0.5)
        return self._is_drained

    def state(self) -> RelayState:
        """Return how delivery is; reads nothing, so that it can be asked while the database is away."""
        return self._progress.state

    def once(self) -> bool:
        """Make one attempt to deliver one batch; True when all of it was delivered or parked."""
        return self._attempt() in {_Step.DELIVERED, _Step.FULL}

    def drain(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and give the leases back.

        True when nothing of it is left, but for what another relay that lives has under its lease, and checkpoints
        that wait for that: these are left to it, whether it goes on or stops (`service.relay.stopping`). So relays that
        stop at the same time leave nothing behind if the sink takes records within the grace of each.
        """
        deadline = self._monotonic() + grace_s
        farewell = Farewell()
        while True:
            step = self._attempt()
            if self._is_due(farewell, step):
                self._release()
                # Only this look counts: another one that stops may have passed over what was held here until now.
                if self._is_due(farewell, step):
                    return True
            left_s = deadline - self._monotonic()
            if left_s <= 0:
                break
            if step is _Step.FAILED:
                self._ended.wait(min(left_s, self._progress.state.pause_s))
            elif step is _Step.IDLE:
                self._ended.wait(min(left_s, self._settings.linger_s))
        self._release()
        return False

    def retry_parked(self) -> Redelivered:
        """Send the parked records again, each alone; what the sink acknowledges is parked no more."""
        return retry_parked(self._outbox, self._delivery)

    def replay(self, stream_id: str, first: int) -> Redelivered:
        """Send what was delivered of a stream again, from a number up to its cursor, which stays where it is.

        Raises:
            NotFoundError: there is no such stream.
        """
        settings = self._settings
        return replay(self._outbox, self._delivery, stream_id, first, settings.max_records, settings.max_bytes)

    def close(self) -> None:
        """Close the connections to database and sink; to be called when nothing is delivered any more."""
        self._outbox.close()
        self._sink.close()

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                step = self._attempt()
                if step is _Step.FULL:
                    continue
                if step is _Step.FAILED:
                    self._stopping.wait(self._progress.state.pause_s)
                elif step is _Step.IDLE:
                    self._wake.wait(self._settings.poll_s)
                    self._wake.clear()
                self._stopping.wait(self._settings.linger_s)
            self._is_drained = self.drain(self._grace_s)
        finally:
            self._ended.set()

    def _attempt(self) -> _Step:
        """Deliver one batch; whatever goes wrong is kept in the state and delays the next attempt."""
        try:
            return self._deliver()
        except TryLaterError as error:
            self._fail("database", error.detail)
        except AuditraceError as error:
            self._fail(error.error_type, str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive it, or nothing would be delivered any more
            _log.exception("the relay goes on after this")
            self._fail("unexpected", f"unexpected {type(error).__name__}: {error}")
        return _Step.FAILED

    def _deliver(self) -> _Step:
        limit = self._limit
        self._delivery.settle()
        records = self._outbox.take(limit, self._settings.max_bytes)
        self._progress.parks(self._outbox.parked_count())
        if not records:
            if self._progress.state.error is not None and not self._outbox.backlog():
                self._progress.flows()
            return _Step.IDLE
        outcome = self._delivery.deliver(records)
        if outcome.parked:
            self._progress.parks(self._outbox.parked_count())
        if outcome.held is None:
            self._progress.flows()
            self._limit = min(self._settings.max_records, limit * 2)
            size = sum(len(record.log_record) for record in records)
            is_full = len(records) * 2 > limit or size * 2 > self._settings.max_bytes
            return _Step.FULL if is_full else _Step.DELIVERED
        answer = outcome.held
        # The next attempt is a small one: what is refused after it was stored (by a collector with a full queue behind
        # its archive, for one) is stored again with every attempt, and a slow line gets the less done the larger the
        # request is. A record that is refused needs some company to be compared with.
        self._limit = 1 + COMPARED if blames_records(answer) else 1
        self._fail(answer.error_type, str(answer), answer.retry_after_s if isinstance(answer, Refused) else None)
        return _Step.FAILED

    def _is_due(self, farewell: Farewell, step: _Step) -> bool:
        try:
            self._outbox.renew()
            return farewell.is_due(self._outbox.backlog(), is_idle=step is _Step.IDLE)
        except TryLaterError as error:
            self._fail("database", error.detail)
            return False

    def _fail(self, kind: str, error: str, retry_after_s: float | None = None) -> None:
        failures = self._progress.state.failures + 1
        self._progress.fails(kind, error, pause_s(failures, retry_after_s, self._random))
        if failures >= RELEASE_AFTER_FAILURES:
            self._release()

    def _release(self) -> None:
        try:
            self._outbox.release()
        except TryLaterError as error:
            _log.warning("the leases could not be given back, they end by themselves: %s", error.detail)

    def _renew(self) -> None:
        while not self._ended.wait(self._settings.renew_s):
            try:
                self._outbox.renew()
            except TryLaterError as error:
                _log.warning("the leases could not be renewed: %s", error.detail)
