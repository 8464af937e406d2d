"""`auditrace work` and `auditrace relay`: a worker or a relay without the API, beside any number of other processes."""

import time
from contextlib import closing

import msgspec

from service.bootstrap.configuring import configure, configure_relay
from service.bootstrap.examined import WORKER
from service.bootstrap.isolating import protect
from service.bootstrap.node import Node
from service.bootstrap.relaying import Redelivery, RelayNode
from service.config import Settings
from service.processes.parts import Parts
from service.processes.reloading import ReloadSignal, nothing_to_reload
from service.processes.stopping import (
    DELIVERIES_KEEP,
    LEAST_TELEMETRY_S,
    WEBHOOKS_SHARE,
    Grace,
    Say,
    StopSignal,
    left_of,
    tell,
)
from service.records import Invocation
from service.relay import Drained, Replayed, ReplayObserver, StallTimeout


def work(settings: Settings, say: Say) -> int:
    """Run jobs until a stop is asked for, and return the exit status of a clean stop; `say` gets lines for people."""
    protect(settings)
    with StopSignal(reloads=True) as stop, ReloadSignal() as reload:
        node = Node(settings, "worker", is_daemon=True, checks=WORKER)
        parts = Parts(node, say, with_worker=True, with_relay=False)
        try:
            configure(node, parts.configured, parts.endpoints, stop.wait)
            parts.start()
            reload.listen(nothing_to_reload)
            stop.wait()
            stop.on_second(parts.grace.hurry)
        finally:
            reload.end()
            parts.stop()
    return 0


def relay(settings: Settings, say: Say) -> int:
    """Deliver until a stop is asked for, and return the exit status of a clean stop; `say` gets lines for people."""
    protect(settings)
    grace = Grace(settings.shutdown_grace_ms / 1000, time.monotonic)
    with StopSignal(reloads=True) as stop, ReloadSignal() as reload:
        node = RelayNode(settings, configure_relay(settings, stop.wait), is_daemon=True)
        grace.at_hurry(node.relay.hurry)
        try:
            if node.webhooks is not None:
                grace.at_hurry(node.webhooks.hurry)
                node.webhooks.start()
            node.relay.start()
            reload.listen(nothing_to_reload)
            stop.wait()
            grace.begin()
            stop.on_second(grace.hurry)
            if node.webhooks is not None:
                node.webhooks.retire(grace.seconds * WEBHOOKS_SHARE)
            node.relay.stop(grace.left_s(kept=DELIVERIES_KEEP))
            if node.webhooks is not None:
                node.webhooks.stop()
            left = node.left_out()
            held = node.relay.state().error
        finally:
            node.close(max(LEAST_TELEMETRY_S, grace.left_s()))
        tell(say, f"auditrace stopped: {left_of(None if left is None else left[1], held)}")
    return 0


def relay_once(settings: Settings) -> Drained:
    """Deliver what is committed now, unless the sink takes nothing for as long as the grace; return the result."""
    with StopSignal() as stop:
        configure_relay(settings, stop.wait)
        with closing(RelayNode(settings, is_daemon=False)) as node:
            return node.relay.deliver_all(_timeout(settings, stop))


class ReplayedAll(msgspec.Struct, frozen=True):
    """The result of a replay from the ledger at `place` to the sink at `address`.

    It leaves out `parked` and `undelivered` records; both None when the database cannot be read.
    """

    replayed: Replayed
    place: str
    address: str
    parked: int | None
    undelivered: int | None


def replay_all(
    settings: Settings, invocation: Invocation, observer: ReplayObserver, *, from_start: bool
) -> ReplayedAll:
    """Send everything that was delivered before to the sink of the settings, as an act of this command."""
    with StopSignal() as stop, closing(Redelivery(settings, invocation)) as node:
        replayed = node.replay_all(_timeout(settings, stop), observer, from_start=from_start)
        parked, undelivered = node.left_out() or (None, None)
        return ReplayedAll(replayed, node.place, node.relay.state().address, parked, undelivered)


def _timeout(settings: Settings, stop: StopSignal) -> StallTimeout:
    return StallTimeout(settings.shutdown_grace_ms / 1000, time.monotonic, stop.wait)
