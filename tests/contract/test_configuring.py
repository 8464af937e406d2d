"""The record of a changed configuration: what it states, when there is one, and when there is none."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.jobs.model import TenantId
from service.operations.base import Committed
from service.operations.configuring import Configured, Configuring
from service.ports import Configuration, Transaction
from service.records import AuditContext
from telemetry import names
from telemetry.audit.limits import MAX_BODY_BYTES
from telemetry.audit.record import Actor, Source
from tests.support.both_stores import BOTH
from tests.support.jobs import Jobs, Record

pytestmark = pytest.mark.stores(*BOTH)

SYSTEM = Actor("auditrace", "system", "service")
SINK = {"sink.archive": "/a/audit.jsonl"}
TEXT = '{"command":["true"]}'


def _configuration(settings: Mapping[str, Any] = SINK, texts: Mapping[str, str] | None = None) -> Configuration:
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (texts or {}).items()}
    return Configuration(settings, hashes)


def _configure(
    jobs: Jobs,
    settings: Mapping[str, Any] = SINK,
    texts: Mapping[str, str] | None = None,
    *,
    host: str = "one",
    source: Source = "api",
    actor: Actor = SYSTEM,
) -> Committed[Configured] | None:
    context = AuditContext(actor=actor, tenant_id=TenantId("default"), source=source)
    span = jobs.services.tracing.root("service.configure")
    return Configuring(jobs.services, context, span).configure(host, _configuration(settings, texts), texts or {})


def _records(jobs: Jobs) -> Sequence[Record]:
    sql = "SELECT body FROM audit_records WHERE event_name = 'service.configure' ORDER BY position"
    return [Record(body) for (body,) in jobs.store.rows(sql)]


def _told(jobs: Jobs) -> Sequence[Mapping[str, Any]]:
    """Return the changes of each record, without the hash of the whole configuration."""
    return [{name: value for name, value in one.changes.items() if name != "configuration"} for one in _records(jobs)]


def test_the_first_configuration_is_recorded_as_a_whole(jobs: Jobs) -> None:
    """One record for the settings, with the hash of everything, and one for each template, with its text."""
    texts = {"hello": TEXT}
    now = _configuration({**SINK, "version": "1", "slots": 2}, texts)
    done = _configure(jobs, now.settings, texts)
    assert done is not None
    assert done.value == Configured(["sink.archive", "slots", "version"], ["hello"], waits=False)
    template, service = _records(jobs)
    assert service.changes == {
        "configuration": {"to": hashlib.sha256(now.document.encode()).hexdigest()},
        "sink.archive": {"to": "/a/audit.jsonl"},
        "slots": {"to": 2},
        "version": {"to": "1"},
    }
    assert template.changes == {"sha256": {"to": now.templates["hello"]}, "text": {"to": TEXT}}
    assert hashlib.sha256(template.changes["text"]["to"].encode()).hexdigest() == template.changes["sha256"]["to"]
    for record, target in ((service, ("service", "one")), (template, ("template", "hello"))):
        stated = {name: value for name, value in record.attributes.items() if not name.startswith("audit.sequence.")}
        assert stated == {
            names.AUDIT_SCHEMA_VERSION: "1.1.0",
            names.AUDIT_RECORD_ID: record.record_id,
            names.LOG_RECORD_UID: record.record_id,
            names.AUDIT_ACTOR_ID: "auditrace",
            names.AUDIT_ACTOR_TYPE: "system",
            names.AUDITRACE_ACTOR_ISSUER: "service",
            names.AUDIT_ACTION: "UPDATE",
            names.AUDIT_OUTCOME: "success",
            names.AUDITRACE_RESULT: "success",
            names.AUDIT_TARGET_TYPE: target[0],
            names.AUDIT_TARGET_ID: target[1],
            names.AUDITRACE_TENANT_ID: "default",
            names.AUDITRACE_SOURCE: "api",
            names.AUDITRACE_CHANGES: record.changes,
        }


def test_a_start_without_a_change_makes_no_record(jobs: Jobs) -> None:
    """However often a process starts, the ledger knows its configuration."""
    for _ in range(3):
        _configure(jobs, SINK, {"hello": TEXT})
    assert len(_records(jobs)) == 2


def test_only_what_differs_is_recorded(jobs: Jobs) -> None:
    """What was added, changed or removed, with both sides; a template that stays has no record."""
    texts = {"gone": "{}", "kept": "{}", "other": "{}"}
    _configure(jobs, {**SINK, "interval": 1, "old": True}, texts)
    before = len(_records(jobs))
    _configure(jobs, {**SINK, "interval": 2, "new": ""}, {"added": TEXT, "kept": "{}", "other": TEXT})
    found = _told(jobs)[before:]
    old, new = (hashlib.sha256(text.encode()).hexdigest() for text in ("{}", TEXT))
    assert found == [
        {"sha256": {"to": new}, "text": {"to": TEXT}},
        {"sha256": {"from": old}},
        {"sha256": {"from": old, "to": new}, "text": {"to": TEXT}},
        {"interval": {"from": 1, "to": 2}, "new": {"to": ""}, "old": {"from": True}},
    ]
    targets = [one.attributes[names.AUDIT_TARGET_ID] for one in _records(jobs)[before:]]
    assert targets == ["added", "gone", "other", "one"]


def test_each_record_states_the_hash_that_the_next_one_begins_with(jobs: Jobs) -> None:
    """So that a reader sees that no change between the two is missing."""
    for interval in (1, 2, 1):
        _configure(jobs, {**SINK, "interval": interval})
    first, second, third = (one.changes["configuration"] for one in _records(jobs))
    assert (second["from"], third["from"], third["to"]) == (first["to"], second["to"], first["to"])


def test_processes_on_many_hosts_with_one_configuration_make_one_record(jobs: Jobs) -> None:
    """Hosts that are new, such as pods, take over what is known; the change of all of them is recorded once."""
    for interval in (1, 2):
        for host in ("one", "two", "three"):
            _configure(jobs, {**SINK, "interval": interval}, host=host)
    assert _told(jobs) == [
        {"sink.archive": {"to": SINK["sink.archive"]}, "interval": {"to": 1}},
        {"interval": {"from": 1, "to": 2}},
    ]


def test_hosts_that_differ_make_no_record_when_they_start_in_turn(jobs: Jobs) -> None:
    """While an upgrade goes from host to host, each change is recorded once, and a restart is none."""
    _configure(jobs, {"version": "1"}, host="one")
    _configure(jobs, {"version": "1"}, host="two")
    _configure(jobs, {"version": "2"}, host="one")
    for _ in range(3):
        _configure(jobs, {"version": "1"}, host="two")
        _configure(jobs, {"version": "2"}, host="one")
    assert _told(jobs) == [{"version": {"to": "1"}}, {"version": {"from": "1", "to": "2"}}]


def test_a_host_that_goes_back_says_so(jobs: Jobs) -> None:
    """Also when it had taken over what another host recorded, and when it never had a record of its own."""
    for host in ("one", "two"):
        _configure(jobs, {"confirms": True}, host=host)
    _configure(jobs, {"confirms": False}, host="one")
    _configure(jobs, {"confirms": False}, host="two")
    _configure(jobs, {"confirms": True}, host="one")
    _configure(jobs, {"confirms": False}, host="three")
    assert _told(jobs)[1:] == [
        {"confirms": {"from": True, "to": False}},
        {"confirms": {"from": False, "to": True}},
        {"confirms": {"from": True, "to": False}},
    ]


def test_a_worker_and_a_relay_have_configurations_of_their_own(jobs: Jobs) -> None:
    """What one of them applies is no change of another."""
    for _ in range(2):
        _configure(jobs, {"interval": 1}, source="worker")
        _configure(jobs, SINK, source="relay")
    assert [(one.attributes[names.AUDITRACE_SOURCE], len(one.changes)) for one in _records(jobs)] == [
        ("worker", 2),
        ("relay", 2),
    ]


def test_who_reloaded_is_the_actor(jobs: Jobs) -> None:
    """The person that the kernel names stands in all records of the change."""
    _configure(jobs, SINK, {"hello": TEXT}, actor=Actor("os:ana@one", "user", "os"))
    assert {one.attributes[names.AUDIT_ACTOR_ID] for one in _records(jobs)} == {"os:ana@one"}


def test_two_processes_that_start_at_the_same_time_make_one_record(jobs: Jobs) -> None:
    """Whichever commits second finds what the first has stored."""
    other = jobs.beside(1)
    go = threading.Barrier(2)

    def start(process: Jobs, number: int) -> Committed[Configured] | None:
        go.wait()
        return _configure(process, {**SINK, "interval": number})

    try:
        for number in range(5):
            with ThreadPoolExecutor(2) as threads:
                done = list(threads.map(start, (jobs, other), (number, number)))
            assert sorted(one is None for one in done) == [False, True]
    finally:
        other.close()
    assert len(_records(jobs)) == 5


@pytest.mark.parametrize("size", [10_000, 200_000])
def test_a_large_template_has_its_hash_whatever_its_size(jobs: Jobs, size: int) -> None:
    """The text is whole while it fits, and is cut by the rule of the format beyond; nothing is refused."""
    text = json.dumps({"command": ["x" * size]})
    _configure(jobs, SINK, {"large": text, "small": TEXT})
    large = next(one for one in _records(jobs) if one.attributes[names.AUDIT_TARGET_ID] == "large")
    assert large.changes["sha256"]["to"] == hashlib.sha256(text.encode()).hexdigest()
    is_cut = size > MAX_BODY_BYTES
    assert (large.changes["text"]["to"] == text) is not is_cut
    assert (large.attributes.get(names.AUDITRACE_TRUNCATED) == ["auditrace.changes.text"]) is is_cut


def test_what_was_stored_without_the_secret_counts_as_unknown(jobs: Jobs) -> None:
    """Whoever writes to the database cannot hide a change: the next start records the whole configuration."""
    _configure(jobs, {**SINK, "confirms": True})
    weak = _configuration({**SINK, "confirms": False}).document
    with jobs.store.attacking() as attacker:
        attacker.execute("UPDATE configurations SET document = ?", [weak])
    done = _configure(jobs, {**SINK, "confirms": False})
    assert done is not None
    assert _told(jobs)[-1] == {"confirms": {"to": False}, "sink.archive": {"to": "/a/audit.jsonl"}}


def test_a_forged_configuration_hides_no_sink(jobs: Jobs) -> None:
    """The sink in force until then is that of the newest configuration that a process of the deployment stored."""
    _configure(jobs, SINK)
    with jobs.store.attacking() as attacker:
        attacker.execute(
            "INSERT INTO configurations SELECT 2, source, host, document, 1, record_id, NULL, '00' FROM configurations"
        )
    _configure(jobs, {"sink.archive": "/b/audit.jsonl"})
    (pending,) = jobs.store.outbox().pending_offers()
    assert pending.known.configuration.sink == SINK


def test_the_database_keeps_configurations_as_they_were_stored(jobs: Jobs) -> None:
    """Rows are added in order, and never changed or removed."""
    _configure(jobs)
    for statement in (
        "UPDATE configurations SET host = 'x'",
        "DELETE FROM configurations",
        "INSERT INTO configurations SELECT 9, source, host, document, 1, record_id, NULL, mac FROM configurations",
    ):
        with pytest.raises(jobs.store.refusal):
            jobs.store.execute(statement)


def test_an_offer_is_pending_until_it_has_ended(jobs: Jobs) -> None:
    """The next process finds the records that the sink before was not offered, with what is known of that sink."""
    _configure(jobs, SINK)
    outbox = jobs.store.outbox()
    assert outbox.pending_offers() == []
    done = _configure(jobs, {"sink.endpoint": "https://c/v1/logs"}, {"hello": TEXT})
    assert done is not None
    (pending,) = outbox.pending_offers()
    assert pending.known.configuration.sink == SINK
    assert pending.changed.sink == {"sink.endpoint": "https://c/v1/logs"}
    template, service = done.receipts
    assert (pending.stream_id, pending.record_number) == (service.stream_id, service.sequence_number)
    taken = outbox.committed_behind(pending.stream_id, 0, pending.record_number, 2**20)
    assert [one.number for one in taken] == list(range(1, pending.record_number + 1))
    assert template.record_id in {one.record_id for one in taken}
    outbox.end_offer(pending.number, None)
    outbox.end_offer(pending.number, "again")
    assert outbox.pending_offers() == []


def test_a_process_that_delivers_nothing_offers_nothing(jobs: Jobs) -> None:
    """It may not reach the sink; the relays deliver its records. One that no longer delivers still reaches it."""
    _configure(jobs, SINK)
    worker = _configure(jobs, {"interval": 1}, source="worker")
    assert worker is not None
    assert worker.value.waits
    outbox = jobs.store.outbox()
    assert outbox.pending_offers() == []
    without_relay = _configure(jobs, {"parts": "api"})
    assert without_relay is not None
    assert not without_relay.value.waits
    (pending,) = outbox.pending_offers()
    assert pending.known.configuration.sink == SINK


def test_nothing_is_stored_without_its_record(jobs: Jobs) -> None:
    """A transaction that fails leaves neither of them."""

    def fail(transaction: Transaction) -> None:
        newest = transaction.configuration()
        assert newest is not None
        raise RuntimeError

    _configure(jobs)
    with pytest.raises(RuntimeError):
        jobs.lane.submit(fail).result()
    assert jobs.store.rows("SELECT count(*) FROM configurations") == [(1,)]
