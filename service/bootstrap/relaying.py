"""Relays, in a process that has a ledger open or in a process of their own; and records of what is sent again."""

import hashlib
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing

from service.bootstrap.checked import found_right
from service.bootstrap.examined import RELAY
from service.bootstrap.ledger_records import LEDGER
from service.bootstrap.node import VERSION
from service.bootstrap.recording import Recorder
from service.bootstrap.webhooks import webhooks_of
from service.config import Settings
from service.errors import TryLaterError
from service.ports import Outbox, ReplayBegun
from service.records import Fact, Invocation, change
from service.relay import Redelivered, Relay, RelaySettings, Replayed, ReplayObserver, StallTimeout
from service.webhooks import WebhookEndpoint
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.record import Result
from telemetry.delivery import open_sink
from telemetry.delivery.archive import ArchiveSink
from telemetry.delivery.settings import SinkSettings, sink_settings
from telemetry.instruments import Instruments
from telemetry.setup import set_up


class RelayNode:
    """A process that only delivers: it needs the database and the sink.

    Raises (on opening):
        SettingsError: there is no ledger, or settings are wrong; all problems at once.
        TryLaterError: the database cannot be used now.
    """

    def __init__(self, settings: Settings, endpoints: Sequence[WebhookEndpoint] = (), *, is_daemon: bool) -> None:
        """Open it; `endpoints` are those of the webhooks that it delivers."""
        instance_id = str(uuid.uuid4())
        self._database, _ = found_right(settings, RELAY)
        self._outbox, self._give_up_name = self._database.outbox(f"node-{instance_id}", time.time_ns)
        self.telemetry = set_up(
            settings.environment, instance_id=instance_id, version=VERSION, certificate="", is_daemon=is_daemon
        )
        self.relay = relay_of(settings, self._outbox, self.telemetry.instruments)
        self.place = self._database.place
        """Where the ledger is, as texts for people show it."""
        owner = f"node-{instance_id}-webhooks"
        self.webhooks = webhooks_of(endpoints, self._database, owner, self.telemetry.instruments)
        """None without endpoints."""

    def left_out(self) -> tuple[int, int] | None:
        """Return how many records are parked, and how many are undelivered; None if the database cannot be read."""
        try:
            undelivered = sum(lag.committed - lag.delivered for lag in self._outbox.backlog())
            return self._outbox.parked_count(), undelivered
        except TryLaterError:
            return None

    def close(self, telemetry_s: float | None = None) -> None:
        """Close everything, after the relay has ended; telemetry is sent for at most `telemetry_s` seconds."""
        self.relay.close()
        if self.webhooks is not None:
            self.webhooks.close()
        self._give_up_name()
        self.telemetry.shutdown(telemetry_s)


class Redelivery(RelayNode):
    """A process in which a person sends records again. What is sent again is recorded, and committed, before.

    Beside what a relay needs, it needs the ledger secret.

    Raises (on opening):
        SettingsError, TryLaterError: as a relay does, and if nothing can be recorded.
    """

    def __init__(self, settings: Settings, invocation: Invocation) -> None:
        super().__init__(settings, is_daemon=False)
        self._sink = _name_of_sink(settings)
        try:
            self._recorder = Recorder(settings, self._database, invocation, self.telemetry)
        except BaseException:
            self.close()
            raise

    def retry_parked(self) -> Redelivered:
        """Send the parked records again, each alone; how many there are is recorded first."""
        if self._record("parked", self._outbox.parked_count()):
            return self.relay.retry_parked()
        return Redelivered(0, ())

    def replay(self, stream_id: str, first: int) -> Redelivered:
        """Send the delivered records of a stream again, from a number on.

        Raises:
            NotFoundError: there is no such stream.
        """
        place = {"from": change(None, f"{stream_id}:{first}")}
        if self._record("stream", self._outbox.delivered_count(stream_id, first), place):
            return self.relay.replay(stream_id, first)
        return Redelivered(0, ())

    def replay_all(self, timeout: StallTimeout, observer: ReplayObserver, *, from_start: bool) -> Replayed:
        """Send all delivered records to a new sink; a run that continues an earlier one is recorded as such."""

        def record(begun: ReplayBegun) -> None:
            more = {"earlier": change(None, begun.earlier)} if begun.earlier else {}
            self._record("all", max(0, begun.total - begun.earlier), more)

        with closing(self._database.replays(self._sink)) as replays:
            return self.relay.replay_all(replays, timeout, observer, record, from_start=from_start)

    def _record(self, selection: str, records: int, more: Mapping[str, Value] | None = None) -> bool:
        """Commit the record; False if there is nothing to send."""
        changes = {
            "selection": change(None, selection),
            "records": change(None, records),
            "sink": change(None, self.relay.state().address),
            **(more or {}),
        }
        result = Result.SUCCESS if records else Result.NOOP
        self._recorder.record(
            Fact(event_name=names.EVENT_AUDIT_REDELIVER, target=LEDGER, result=result, changes=changes)
        )
        return records > 0


def relay_of(settings: Settings, outbox: Outbox, instruments: Instruments) -> Relay:
    """Return a relay from an outbox to the sink that the settings name.

    Raises:
        TelemetrySettingsError: the sink's settings are wrong.
    """
    endpoint = _endpoint(settings)
    if endpoint is not None:
        sink = open_sink(endpoint, time.time_ns)
    else:
        sink = ArchiveSink(settings.archive, time.time_ns, settings.archive_max_bytes)
    draw = random.SystemRandom().random
    return Relay(outbox, sink, RelaySettings(), instruments, time.time_ns, time.monotonic, draw)


def _endpoint(settings: Settings) -> SinkSettings | None:
    return sink_settings(settings.environment, settings.audit_endpoint, settings.audit_token_file)


def _name_of_sink(settings: Settings) -> str:
    """Return a name that distinguishes sinks: a hash, because an address may contain a secret."""
    endpoint = _endpoint(settings)
    address = str(settings.archive.resolve()) if endpoint is None else f"{endpoint.protocol} {endpoint.endpoint}"
    return hashlib.sha256(address.encode()).hexdigest()
