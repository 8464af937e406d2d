"""`auditrace work` and `auditrace relay`: a worker or a relay without the API, beside any number of other processes."""

from service.bootstrap.node import Node
from service.bootstrap.relaying import RelayNode
from service.config import Settings
from service.processes.parts import Parts
from service.processes.stopping import StopSignal


def work(settings: Settings) -> int:
    """Run jobs until a stop is asked for, and return the exit status of a clean stop."""
    with StopSignal() as stop:
        parts = Parts(Node(settings, "worker", is_daemon=True), with_worker=True, with_relay=False)
        parts.start()
        stop.wait()
        parts.stop()
    return 0


def relay(settings: Settings, *, once: bool) -> int:
    """Deliver until a stop is asked for; with `once`, what is there now: 1 when some of it could not be delivered."""
    grace_s = settings.shutdown_grace_ms / 1000
    with StopSignal() as stop:
        node = RelayNode(settings, is_daemon=not once)
        try:
            if once:
                return 0 if node.relay.drain(grace_s) else 1
            node.relay.start()
            stop.wait()
            node.relay.stop(grace_s)
        finally:
            node.close()
    return 0
