"""The webhooks of a process: a thread for each endpoint, and one that renews their leases."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from service.errors import AuditraceError
from service.loop import Loop
from service.outage import Outage
from service.ports import Clock, WebhookOutbox
from service.relay import RelayState
from service.relay.attempts import AttemptResult
from service.relay.backoff import pause_s
from service.relay.state import DeliveryProgress
from service.webhooks.deliveries import Deliveries, Sender
from service.webhooks.endpoints import WebhookEndpoint
from service.webhooks.holds import Holds
from telemetry.instruments import Instruments

_log = logging.getLogger(__name__)

OpenSender: TypeAlias = Callable[[WebhookEndpoint], Sender]
"""Opens the connection to an endpoint; raises TelemetrySettingsError when its files cannot be used."""

LONGEST_PAUSE_S: Final = 60.0
LONGEST_ASKED_S: Final = 300.0
_POLL_S: Final = 0.5
_LINGER_S: Final = 0.1
_RENEW_S: Final = 2.0
_LAST_STEP_S: Final = 0.5
"""How long a stop waits for the thread of an endpoint that fails, or whose time is over."""


class Webhooks:
    """Delivers to all endpoints. No client and no job waits for them, and no endpoint waits for another one.

    Several processes share the work: one at a time delivers to an endpoint. A record is tried until the endpoint
    acknowledges it.
    """

    def __init__(
        self,
        endpoints: Sequence[WebhookEndpoint],
        outbox: WebhookOutbox,
        open_sender: OpenSender,
        instruments: Instruments,
        clock: Clock,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._monotonic = monotonic
        self._names = [endpoint.name for endpoint in endpoints]
        self._hurried = threading.Event()
        self._deadline: float | None = None

        def pause(failures: int, asked_s: float | None) -> float:
            return pause_s(failures, asked_s, random, LONGEST_PAUSE_S, LONGEST_ASKED_S)

        self._threads: list[_EndpointThread] = []
        for endpoint in endpoints:
            progress, sender = DeliveryProgress(endpoint.address, clock, pause), open_sender(endpoint)
            holds = Holds(pause, monotonic)
            deliveries = Deliveries(endpoint, outbox, sender, progress, holds, instruments, monotonic, self._is_over)
            self._threads.append(_EndpointThread(endpoint.name, deliveries, sender, progress, self._is_over))
        self._renewing = Outage(
            _log,
            "the leases of webhooks cannot be renewed",
            "the leases of webhooks are renewed again",
            logging.WARNING,
        )
        self._leases = Loop("webhook-lease", self._renew)
        instruments.observe_webhooks(self._names, self._backlog)

    def start(self) -> None:
        """Start to deliver. A new endpoint gets what is committed from now on, unless its file says otherwise."""
        for thread in self._threads:
            thread.start()
        self._leases.start()

    def wake(self) -> None:
        """Look for records at once; to be called after each commit, from any thread. Never blocks."""
        for thread in self._threads:
            thread.loop.wake()

    def hurry(self) -> None:
        """End the deliveries behind the present records; from any thread."""
        self._hurried.set()

    def retire(self, grace_s: float) -> None:
        """Deliver what is committed by now, within `grace_s` seconds, and end. Never blocks; `stop` waits for the end.

        An endpoint that fails is not tried again: its records are left to the next start.
        """
        self._deadline = self._monotonic() + grace_s
        for thread in self._threads:
            thread.loop.retire()

    def stop(self) -> None:
        """Wait for the ends that `retire` asked for. A request that has no answer then counts as unanswered."""
        for thread in self._threads:
            left_s = 0.0 if self._deadline is None or self._hurried.is_set() else self._deadline - self._monotonic()
            thread.stop(max(0.0, left_s))
        self._leases.stop(_LAST_STEP_S)

    def close(self) -> None:
        """Close the connections to database and endpoints; a request in progress fails, which is not logged."""
        for thread in self._threads:
            thread.close()
        self._outbox.close()

    def states(self) -> Mapping[str, RelayState]:
        """Return the state of each endpoint in this process; works while the database is away."""
        return {thread.name: thread.progress.state for thread in self._threads}

    @property
    def text(self) -> str:
        """The text for readiness; empty while all deliveries succeed."""
        return "; ".join(state.text for state in self.states().values() if state.text)

    def _is_over(self) -> bool:
        return self._hurried.is_set() or (self._deadline is not None and self._monotonic() >= self._deadline)

    def _renew(self) -> None:
        if not self._leases.rest(_RENEW_S):
            self._renewing.attempt(self._outbox.renew)

    def _backlog(self) -> Mapping[str, tuple[int, float]]:
        if self._leases.is_stopping:
            return {}
        found = {name: self._outbox.state(name) for name in self._names}
        now_ns = self._clock()
        return {
            name: (state.records, 0.0 if state.oldest_ns is None else max(0, now_ns - state.oldest_ns) / 1e9)
            for name, state in found.items()
            if state is not None
        }


class _EndpointThread:
    """The thread of one endpoint."""

    def __init__(
        self,
        name: str,
        deliveries: Deliveries,
        sender: Sender,
        progress: DeliveryProgress,
        is_over: Callable[[], bool],
    ) -> None:
        self.name = name
        self.progress = progress
        self._deliveries = deliveries
        self._sender = sender
        self._is_over = is_over
        self.loop = Loop(f"webhook-{name}", self._turn, self._finish)

    def start(self) -> None:
        with suppress(AuditraceError):
            # Now and not in the thread, so that what this process commits next is not before the begin.
            self._deliveries.register()
        self.loop.start()

    def stop(self, left_s: float) -> None:
        is_failing = self.progress.state.failures > 0
        self.loop.stop(_LAST_STEP_S if is_failing else left_s + _LAST_STEP_S)
        if self.loop.is_alive:
            # It waits for an answer, which does not count any more; the next process need not wait too.
            self._deliveries.release()

    def close(self) -> None:
        self.progress.end()
        self._sender.close()

    def _turn(self) -> None:
        step = self._deliveries.next()
        if step is AttemptResult.FAILED:
            self.loop.rest(self.progress.state.pause_s)
        elif step is AttemptResult.IDLE:
            self.loop.wait_for_wake(_POLL_S)
        if step is not AttemptResult.FULL:
            self.loop.rest(_LINGER_S)

    def _finish(self) -> bool:
        while self.progress.state.failures == 0 and not self._is_over():
            if self._deliveries.next() is not AttemptResult.FULL:
                break
        self._deliveries.release()
        return True
