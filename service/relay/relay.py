"""The relay's thread: takes what is committed, delivers it, and holds on through outages of sink and database."""

import threading
from collections.abc import Callable
from typing import Final

from service.errors import AuditraceError
from service.ports import Clock, Outbox, Replays
from service.relay.attempts import AttemptResult, Attempts, RelaySettings
from service.relay.delivery import Delivery
from service.relay.leases import Leases
from service.relay.patience import Patience
from service.relay.redelivery import Redelivered, replay, retry_parked
from service.relay.replaying import Replayed, Replaying, Watch
from service.relay.state import Progress, RelayState
from service.relay.stopping import Drained, LastDelivery, left_in, reason_of
from telemetry.delivery.answers import Sink
from telemetry.instruments import Instruments

_LAST_STEP_S: Final = 0.5


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
        self._leases = Leases(outbox, settings.renew_s)
        self._attempts = Attempts(outbox, self._delivery, self._leases, self._progress, settings, random)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._hurried = threading.Event()
        self._grace_s = 0.0
        self._is_drained = False
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()
        self._leases.start()

    def wake(self) -> None:
        """Say that something was committed; cheap, from any thread."""
        self._wake.set()

    def hurry(self) -> None:
        """Have `stop` wait no longer; from any thread."""
        self._hurried.set()
        self._ended.set()

    def stop(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and end; True when nothing was left.

        What is left stays in the outbox for the next relay. Returns in time also while an answer is outstanding; its
        request counts as unanswered.
        """
        self._grace_s = grace_s
        deadline = self._monotonic() + grace_s
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._ended.wait(max(0.0, deadline - self._monotonic()))
            # Also told to wait no longer, it ends its step and gives its leases back, before the database is closed.
            self._thread.join(_LAST_STEP_S)
        self._leases.stop(_LAST_STEP_S)
        return self._is_drained

    def state(self) -> RelayState:
        """Return how delivery is; reads nothing, so that it can be asked while the database is away."""
        return self._progress.state

    def once(self) -> bool:
        """Make one attempt to deliver one batch; True when all of it was delivered or parked."""
        return self._attempts.next() in {AttemptResult.DELIVERED, AttemptResult.FULL}

    def drain(self, grace_s: float) -> bool:
        """Deliver what is committed by now, within `grace_s` seconds, and give the leases back.

        True when nothing of it is left, but for what another relay that lives has under its lease, and checkpoints
        that wait for that: these are left to it, whether it goes on or stops (`service.relay.stopping`). So relays that
        stop at the same time leave nothing behind if the sink takes records within the grace of each.
        """
        deadline = self._monotonic() + grace_s

        def left_s() -> float:
            return 0.0 if self._hurried.is_set() else deadline - self._monotonic()

        return self._drain(left_s, self._hurried.wait)

    def deliver_all(self, patience: Patience) -> Drained:
        """Deliver what is committed by now, however long it takes, and give the leases back.

        It ends before all is delivered only when nothing could be delivered for as long as `patience` has. To be
        called instead of `start`, once.
        """
        self._leases.start()
        attempts, seen = self._attempts, 0

        def left_s() -> float:
            nonlocal seen
            if attempts.delivered + attempts.parked > seen:
                seen = attempts.delivered + attempts.parked
                patience.gets_on()
            return patience.left_s()

        is_complete = self._drain(left_s, patience.pause)
        self._leases.stop(self._settings.renew_s)
        left = left_in(self._outbox)
        reason = None if is_complete else reason_of(self._progress.state, left, patience)
        return Drained(self._progress.state.address, attempts.delivered, attempts.parked, left, reason)

    def _drain(self, left_s: Callable[[], float], wait: Callable[[float], object]) -> bool:
        farewell = LastDelivery()
        while True:
            step = self._attempts.next()
            if self._is_due(farewell, step):
                self._leases.release()
                # Only this look counts: another one that stops may have passed over what was held here until now.
                if self._is_due(farewell, step):
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
        """Send the parked records again, each alone; what the sink acknowledges is parked no more."""
        return retry_parked(self._outbox, self._delivery)

    def replay(self, stream_id: str, first: int) -> Redelivered:
        """Send what was delivered of a stream again, from a number up to its cursor, which stays where it is.

        Raises:
            NotFoundError: there is no such stream.
        """
        settings = self._settings
        return replay(self._outbox, self._delivery, stream_id, first, settings.max_records, settings.max_bytes)

    def replay_all(self, replays: Replays, patience: Patience, watch: Watch, *, from_start: bool) -> Replayed:
        """Send everything that was delivered until now once more, for a sink that is new; cursors stay where they are.

        How far it got is kept, so that the next call goes on there, unless it is to begin `from_start`.
        """
        run = Replaying(replays, self._delivery, self._progress, self._settings, patience, self._random, watch)
        return run.run(from_start=from_start)

    def close(self) -> None:
        """Close the connections to database and sink; what is still under way fails, and nothing is said of that."""
        self._progress.end()
        self._outbox.close()
        self._sink.close()

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                step = self._attempts.next()
                if step is AttemptResult.FULL:
                    continue
                if step is AttemptResult.FAILED:
                    self._stopping.wait(self._progress.state.pause_s)
                elif step is AttemptResult.IDLE:
                    self._wake.wait(self._settings.poll_s)
                    self._wake.clear()
                self._stopping.wait(self._settings.linger_s)
            self._is_drained = self.drain(self._grace_s)
        finally:
            self._ended.set()

    def _is_due(self, farewell: LastDelivery, step: AttemptResult) -> bool:
        try:
            self._outbox.renew()
            return farewell.is_due(self._outbox.backlog(), is_idle=step is AttemptResult.IDLE)
        except AuditraceError as error:
            self._attempts.failed(error)
            return False
