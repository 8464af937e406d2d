"""`auditrace work` and `auditrace relay`: a worker or a relay without the API, beside any number of other processes."""

import logging
import time

from service.bootstrap.node import Node
from service.bootstrap.relaying import RelayNode
from service.config import Settings
from service.processes.parts import LEFT, Parts
from service.processes.stopping import StopSignal
from service.relay import Drained, Patience

_log = logging.getLogger(__name__)


def work(settings: Settings) -> int:
    """Run jobs until a stop is asked for, and return the exit status of a clean stop."""
    with StopSignal() as stop:
        parts = Parts(Node(settings, "worker", is_daemon=True), with_worker=True, with_relay=False)
        parts.start()
        stop.wait()
        parts.stop()
    return 0


def relay(settings: Settings) -> int:
    """Deliver until a stop is asked for, and return the exit status of a clean stop."""
    with StopSignal() as stop:
        node = RelayNode(settings, is_daemon=True)
        try:
            node.relay.start()
            stop.wait()
            if not node.relay.stop(settings.shutdown_grace_ms / 1000):
                _log.warning(LEFT)
        finally:
            node.close()
    return 0


def relay_once(settings: Settings) -> Drained:
    """Deliver what is there now, unless the sink takes nothing for as long as the grace, and return how that went."""
    with StopSignal() as stop:
        node = RelayNode(settings, is_daemon=False)
        try:
            return node.relay.deliver_all(Patience(settings.shutdown_grace_ms / 1000, time.monotonic, stop.wait))
        finally:
            node.close()
