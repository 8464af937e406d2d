"""The relay's thread: takes committed records, delivers them, and tries on through outages of sink and database."""

import threading
from collections.abc import Callable
from typing import Final

from service.errors import AuditraceError
from service.loop import Loop
from service.ports import Clock, Outbox, ReplayBegun, Replays
from service.relay.attempts import AttemptResult, Attempts, RelaySettings
from service.relay.backoff import pause_s
from service.relay.delivery import Delivery
from service.relay.leases import Leases
from service.relay.redelivery import Redelivered, replay, retry_parked
from service.relay.replaying import Replayed, Replaying, ReplayObserver
from service.relay.stall_timeout import StallTimeout
from service.relay.state import DeliveryProgress, RelayState
from service.relay.stopping import Drained, LastDelivery, left_in, reason_of
from telemetry.delivery.answers import Sink
from telemetry.instruments import Instruments

_LAST_STEP_S: Final = 0.5


class Relay:
    """A process's relay: one thread that delivers, one that renews its leases meanwhile.

    No client waits for it: it reads what lanes committed, and locks the database for writing only to move cursors.
    It tries every record until it is delivered or parked, and has at most one batch in memory.
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
        self._delivery = Delivery(outbox, sink, instruments, monotonic)
        self._progress = DeliveryProgress(
            sink.address, clock, lambda failures, asked_s: pause_s(failures, asked_s, random)
        )
        self._leases = Leases(outbox, settings.renew_s)
        self._attempts = Attempts(outbox, self._delivery, self._leases, self._progress, settings)
        self._ended = threading.Event()
        self._hurried = threading.Event()
        self._grace_s = 0.0
        self._is_drained = False
        self._loop = Loop("relay", self._turn, self._finish)

    def start(self) -> None:
        """Start to deliver."""
        self._loop.start()
        self._leases.start()

    def wake(self) -> None:
        """Look for records at once; to be called after each commit, from any thread. Never blocks."""
        self._loop.wake()

    def hurry(self) -> None:
        """End the wait in `stop` now; from any thread."""
        self._hurried.set()
        self._ended.set()

    def stop(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and end; True when nothing was left.

        Records that are left stay in the outbox for the next relay. It returns in time also while the sink has not
        answered; that request counts as unanswered.
        """
        self._grace_s = grace_s
        self._loop.retire()
        if self._loop.is_alive:
            self._ended.wait(grace_s)
            # Also when `hurry` ended the wait, the thread ends its step and releases its leases before the database is
            # closed.
            self._loop.stop(_LAST_STEP_S)
        self._leases.stop(_LAST_STEP_S)
        return self._is_drained

    def state(self) -> RelayState:
        """Return the state of delivery; works while the database is away, because it reads nothing."""
        return self._progress.state

    def once(self) -> bool:
        """Make one attempt to deliver one batch; True when all of it was delivered or parked."""
        return self._attempts.next() in {AttemptResult.DELIVERED, AttemptResult.FULL}

    def drain(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and give the leases back.

        True when nothing of it is left, except for records under the lease of another live relay, and checkpoints that
        wait for those: that relay delivers them, whether it keeps running or stops (`service.relay.stopping`). So
        relays that stop at the same time leave nothing behind if the sink takes records within the grace of each.
        """
        deadline = self._monotonic() + grace_s

        def left_s() -> float:
            return 0.0 if self._hurried.is_set() else deadline - self._monotonic()

        return self._drain(left_s, self._hurried.wait)

    def deliver_all(self, timeout: StallTimeout) -> Drained:
        """Deliver what is committed by now, however long it takes, and give the leases back.

        It ends before all is delivered only when `timeout` ends. To be called once, instead of `start`.
        """
        self._leases.start()
        attempts, seen = self._attempts, 0

        def left_s() -> float:
            nonlocal seen
            if attempts.delivered + attempts.parked > seen:
                seen = attempts.delivered + attempts.parked
                timeout.progressed()
            return timeout.left_s()

        is_complete = self._drain(left_s, timeout.pause)
        self._leases.stop(self._settings.renew_s)
        left = left_in(self._outbox)
        reason = None if is_complete else reason_of(self._progress.state, left, timeout)
        return Drained(self._progress.state.address, attempts.delivered, attempts.parked, left, reason)

    def _drain(self, left_s: Callable[[], float], wait: Callable[[float], object]) -> bool:
        last = LastDelivery()
        while True:
            step = self._attempts.next()
            if self._is_done(last, step):
                self._leases.release()
                # Only this second look counts: another stopping relay may have left records to this one until now.
                if self._is_done(last, step):
                    return True
            left = left_s()
            if left <= 0:
                break
            if step is AttemptResult.FAILED:
                wait(min(left, self._progress.state.pause_s))
            elif step is AttemptResult.IDLE:
                wait(min(left, self._settings.linger_s))
        self._leases.release()
        return False

    def retry_parked(self) -> Redelivered:
        """Send the parked records again, each alone; a record that the sink acknowledges is no longer parked."""
        return retry_parked(self._outbox, self._delivery)

    def replay(self, stream_id: str, first: int) -> Redelivered:
        """Send the delivered records of a stream again, from a number up to its cursor, which does not move.

        Raises:
            NotFoundError: there is no such stream.
        """
        settings = self._settings
        return replay(self._outbox, self._delivery, stream_id, first, settings.max_records, settings.max_bytes)

    def replay_all(
        self,
        replays: Replays,
        timeout: StallTimeout,
        observer: ReplayObserver,
        record: Callable[[ReplayBegun], object],
        *,
        from_start: bool,
    ) -> Replayed:
        """Call `record`, then send everything that was delivered until now to a new sink; no cursor moves.

        The database keeps how far it got, so that the next call goes on there, or begins anew with `from_start`.
        """
        run = Replaying(replays, self._delivery, self._progress, self._settings, timeout, observer)
        return run.run(record, from_start=from_start)

    def close(self) -> None:
        """Close the connections to database and sink; a request in progress fails, which is not logged."""
        self._progress.end()
        self._outbox.close()
        self._sink.close()

    def _turn(self) -> None:
        step = self._attempts.next()
        if step is AttemptResult.FAILED:
            self._loop.rest(self._progress.state.pause_s)
        elif step is AttemptResult.IDLE:
            self._loop.wait_for_wake(self._settings.poll_s)
        if step is not AttemptResult.FULL:
            self._loop.rest(self._settings.linger_s)

    def _finish(self) -> bool:
        try:
            self._is_drained = self.drain(self._grace_s)
        finally:
            self._ended.set()
        return True

    def _is_done(self, last: LastDelivery, step: AttemptResult) -> bool:
        try:
            self._outbox.renew()
            return last.is_done(self._outbox.backlog(), is_idle=step is AttemptResult.IDLE)
        except AuditraceError as error:
            self._attempts.failed(error)
            return False
