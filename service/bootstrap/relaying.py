"""Relays: within a process that has a ledger open, or alone."""

import random
import time
import uuid

from service.bootstrap.databases import database_of
from service.bootstrap.node import VERSION
from service.config import Settings
from service.ports import Outbox
from service.relay import Relay, RelaySettings
from telemetry.delivery import ArchiveSink, Sink, open_sink, sink_settings
from telemetry.instruments import Instruments
from telemetry.setup import set_up


class RelayNode:
    """A process that only delivers: it needs the database and the sink, and no key.

    Raises (on opening):
        SettingsError: there is no database.
        TelemetrySettingsError: the sink's settings are wrong.
        TryLaterError: the database cannot be used now.
    """

    def __init__(self, settings: Settings, *, is_daemon: bool) -> None:
        instance_id = str(uuid.uuid4())
        outbox, self._give_up_name = database_of(settings.database).outbox(f"node-{instance_id}", time.time_ns)
        self.telemetry = set_up(
            settings.environment, instance_id=instance_id, version=VERSION, certificate="", is_daemon=is_daemon
        )
        self.relay = relay_of(settings, outbox, self.telemetry.instruments)

    def close(self) -> None:
        """Close everything; the relay has ended."""
        self.relay.close()
        self._give_up_name()
        self.telemetry.shutdown()


def relay_of(settings: Settings, outbox: Outbox, instruments: Instruments) -> Relay:
    """Return a relay from an outbox to the sink that the settings name.

    Raises:
        TelemetrySettingsError: the sink's settings are wrong.
    """
    endpoint = sink_settings(settings.environment, settings.audit_endpoint, settings.audit_token_file)
    sink: Sink
    if endpoint is None:
        sink = ArchiveSink(settings.archive, time.time_ns, settings.archive_max_bytes)
    else:
        sink = open_sink(endpoint, time.time_ns)
    draw = random.SystemRandom().random
    return Relay(outbox, sink, RelaySettings(), instruments, time.time_ns, time.monotonic, draw)
