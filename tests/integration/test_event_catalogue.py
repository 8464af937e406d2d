"""An OTLP server receives every event of the catalogue, each attribute by its registered name and with its type."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.metrics import MeterProvider

from service.ports import Transition
from service.relay import Relay, RelaySettings
from service.store.sqlite.transaction import SqliteTransaction
from telemetry import names
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import SIGNED_EVENTS, Signer
from telemetry.delivery import open_sink
from telemetry.delivery.settings import sink_settings
from telemetry.instruments import Instruments
from tests.support.catalogue import every_event
from tests.support.collector import ROOT
from tests.support.ids import ManualClock
from tests.support.ledger_maker import KEY
from tests.support.otlp_sink import OtlpSink
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import new_job

KINDS = {
    "string": "string_value",
    "int": "int_value",
    "boolean": "bool_value",
    "string[]": "array_value",
    "changes": "kvlist_value",
    "tips": "array_value",
}

Received = Mapping[str, Mapping[str, AnyValue]]


def _registry(kind: str) -> Mapping[str, Mapping[str, Any]]:
    # Read from the YAML and not from the generated constants, which the code under test uses itself.
    document = yaml.safe_load((ROOT / "telemetry" / "registry" / f"{kind}.yaml").read_text("utf-8"))
    return {entry["name"]: entry for entry in document[kind]}


ATTRIBUTES, EVENTS = _registry("attributes"), _registry("events")


def _commit(transaction: SqliteTransaction, record: AuditRecord) -> None:
    if record.event_name in SIGNED_EVENTS:
        transaction.save_signed(record, Signer(KEY))
    else:
        transaction.save(Transition(record=record))


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Received]:
    """The attributes that the server holds of each event, after every one was committed and delivered."""
    store = SqliteStore(tmp_path_factory.mktemp("catalogue"))
    lane = store.lane()
    writer = store.checkpoints(lane)
    for record in every_event(store.ids):
        # A checkpoint that names tips which are not there would be held back for ever, as it must be.
        if record.event_name != names.EVENT_AUDIT_CHECKPOINT:
            lane.submit(lambda transaction, record=record: _commit(transaction, record)).result()
    lane.submit(lambda transaction: transaction.save(store.transition(new_job()))).result()
    # The second checkpoint also names the one before it.
    for _ in range(2):
        assert writer.write() is not None
    with OtlpSink() as server:
        settings = sink_settings({}, f"{server.http_endpoint}/v1/logs")
        assert settings is not None
        instruments = Instruments(MeterProvider(shutdown_on_exit=False).get_meter("test"))
        clock = ManualClock()
        relay = Relay(
            store.outbox(), open_sink(settings, clock), RelaySettings(), instruments, clock, lambda: 0.0, lambda: 0.5
        )
        assert relay.drain(30)
        merged: dict[str, dict[str, AnyValue]] = {}
        for each in server.log_records():
            attributes = {pair.key: pair.value for pair in each.record.attributes}
            merged.setdefault(each.record.event_name, {}).update(attributes)
        yield merged
    store.close()


def test_every_event_of_the_catalogue_arrived(received: Received) -> None:
    """No event is left out, and none is there that the catalogue does not know."""
    assert set(received) == set(EVENTS)


@pytest.mark.parametrize("event_name", EVENTS)
def test_names_and_types_are_the_registered_ones(received: Received, event_name: str) -> None:
    """Each attribute of the event stands in the registry, has the type that it gives, and a value that it allows."""
    for key, value in received[event_name].items():
        assert value.WhichOneof("value") == KINDS[ATTRIBUTES[key]["type"]], key
        if "values" in ATTRIBUTES[key]:
            assert value.string_value in ATTRIBUTES[key]["values"], key


@pytest.mark.parametrize("event_name", EVENTS)
def test_what_is_always_there_is_there(received: Received, event_name: str) -> None:
    """Each event carries every attribute that the registry marks as always present, and the hash of its body."""
    always = {name for name, entry in ATTRIBUTES.items() if entry.get("always")} | {names.AUDIT_INTEGRITY_HASH}
    assert always <= set(received[event_name])


@pytest.mark.parametrize("event_name", EVENTS)
def test_the_action_is_that_of_the_catalogue(received: Received, event_name: str) -> None:
    """The action of a record follows from its event name, and is never chosen by whoever records it."""
    assert received[event_name][names.AUDIT_ACTION].string_value == EVENTS[event_name]["action"]


def test_every_attribute_of_the_body_was_seen(received: Received) -> None:
    """The proof covers every attribute that may stand in a body: each arrived on some event."""
    seen = {key for attributes in received.values() for key in attributes}
    assert {name for name, entry in ATTRIBUTES.items() if entry.get("in_body")} <= seen
