"""What the service sends through the shipped collector comes back from the query APIs of real backends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.audit.verify import read_copy, verify
from telemetry.names import AUDIT_ACTION, AUDIT_ACTOR_ID, AUDIT_RECORD_ID, AUDIT_RECORDED, AUDIT_TARGET_ID
from tests.support.archive import archived, message_of
from tests.support.backends import Jaeger, VictoriaLogs
from tests.support.collector import Collector
from tests.support.ledger_maker import KEY, Ledger
from tests.support.otlp_client import post
from tests.support.otlp_messages import log_records_of, plain_attributes
from tests.support.poll_until import poll_until
from tests.support.telemetry_maker import SERVICE, audit_request, record_ids_of, span, trace_request


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaLogs]:
    """The log backend, with the records of every event in it."""
    folder = tmp_path_factory.mktemp("logs")
    with VictoriaLogs(folder) as running:
        with Collector(folder / "collector", {"AUDIT_LOGS_ENDPOINT": running.otlp_endpoint}) as collector:
            assert post(collector.audit_endpoint, audit_request()).status == 200
            wanted = len(log_records_of([audit_request()]))
            poll_until(lambda: len(running.query("*")) == wanted, "the records in VictoriaLogs")
        yield running


def test_victoria_logs_gives_back_every_body_byte_for_byte(logs: VictoriaLogs) -> None:
    """The body of the record of every event, whatever characters are in it, is the text of its log."""
    bodies = {each.record.body.string_value for each in log_records_of([audit_request()])}
    assert {log["_msg"] for log in logs.query("*")} == bodies


def test_victoria_logs_finds_a_record_by_what_people_ask_for(logs: VictoriaLogs) -> None:
    """Record id, trace and span, actor, action, target and event name each lead to the record."""
    wanted = log_records_of([audit_request()])[0].record
    attributes = plain_attributes(wanted.attributes)
    record_id = attributes[AUDIT_RECORD_ID]
    questions = {name: attributes[name] for name in (AUDIT_RECORD_ID, AUDIT_ACTOR_ID, AUDIT_ACTION, AUDIT_TARGET_ID)}
    questions |= {
        "trace_id": wanted.trace_id.hex(),
        "span_id": wanted.span_id.hex(),
        "event_name": wanted.event_name,
        "service.name": SERVICE,
    }
    for name, value in questions.items():
        found = logs.query(f'"{name}":="{value}"')
        assert record_id in [log[AUDIT_RECORD_ID] for log in found], name
    assert [log[AUDIT_RECORD_ID] for log in logs.query(f'"{AUDIT_RECORD_ID}":="{record_id}"')] == [record_id]


def test_victoria_logs_turns_every_attribute_into_text(logs: VictoriaLogs) -> None:
    """The limit that the body is there for: numbers come back as text, and objects as a field for each member."""
    log = logs.query('"event_name":="job.create"')[0]
    assert log["audit.sequence.number"] == "1"
    assert log["auditrace.changes.status.to"] == "draft_ready"
    assert "auditrace.changes" not in log


def test_victoria_logs_drops_records_beyond_its_retention_and_the_archive_keeps_them(tmp_path: Path) -> None:
    """A record that is older than the store's retention is acknowledged and dropped there; only its metrics say so."""
    with (
        VictoriaLogs(tmp_path / "logs", retention="7d") as logs,
        Collector(tmp_path / "collector", {"AUDIT_LOGS_ENDPOINT": logs.otlp_endpoint}) as collector,
    ):
        sent = log_records_of([audit_request()])
        assert post(collector.audit_endpoint, audit_request()).status == 200
        poll_until(lambda: logs.dropped() == len(sent), "the drops")
        assert logs.query("*") == []
        assert collector.own_metric("otelcol_exporter_send_failed_log_records") == 0
        assert archived(collector.archive_dir) == sent


def test_what_victoria_logs_gives_back_verifies(tmp_path: Path) -> None:
    """The bodies that its query API exports, in whatever order, prove themselves with the public key alone."""
    ledger = Ledger()
    for stream in (1, 2, 1, 2):
        ledger.append(stream)
    # A copy of bodies alone has the signature of a checkpoint in the next one.
    for _ in range(2):
        ledger.checkpoint(1)
    with (
        VictoriaLogs(tmp_path / "logs") as logs,
        Collector(tmp_path / "collector", {"AUDIT_LOGS_ENDPOINT": logs.otlp_endpoint}) as collector,
    ):
        for record in ledger.records:
            assert post(collector.audit_endpoint, message_of(json.loads(record.line()))).status == 200
        poll_until(lambda: len(logs.query("*")) == len(ledger.records), "the records in VictoriaLogs")
        export = tmp_path / "export.jsonl"
        export.write_bytes(b"".join(log["_msg"].encode() + b"\n" for log in logs.query("*")))
        from_store = verify(read_copy([export]), public_keys=[KEY.public_key()])
        from_archive = verify(read_copy([collector.archive_dir]), public_keys=[KEY.public_key()])
    for report in (from_store, from_archive):
        assert (report.verdict, report.records, report.findings) == ("intact", len(ledger.records), ())
    assert from_store.last_checkpoint is not None


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """The trace backend."""
    with Jaeger(tmp_path_factory.mktemp("jaeger")) as running:
        yield running


def test_jaeger_has_the_audited_trace_with_the_records_ids_and_not_the_other(tmp_path: Path, jaeger: Jaeger) -> None:
    """At a baseline of 0 % the audited trace is found by its id and by search, whole, and leads to its records."""
    ids = record_ids_of(log_records_of([audit_request()]))[:2]
    root = span("POST /v1/jobs")
    made = span("commit", parent=root, attributes={AUDIT_RECORD_ID: [*ids], AUDIT_RECORDED: True})
    other = span("GET /v1/jobs")
    settings = {
        "JAEGER_ENDPOINT": jaeger.otlp_endpoint,
        "TRACES_ENDPOINT": jaeger.otlp_endpoint,
        "TRACE_SAMPLING_PERCENTAGE": "0",
    }
    with Collector(tmp_path, settings) as collector:
        assert post(collector.traces_endpoint, trace_request(other)).status == 200
        assert post(collector.traces_endpoint, trace_request(root, made)).status == 200
        trace_id = made.trace_id.hex()
        poll_until(lambda: {each["name"] for each in jaeger.spans(trace_id)} == {root.name, made.name}, "it")
        (found,) = [each for each in jaeger.spans(trace_id) if each["spanId"] == made.span_id.hex()][:1]
        values = {each["key"]: each["value"] for each in found["attributes"]}
        assert values[AUDIT_RECORD_ID] == {"arrayValue": {"values": [{"stringValue": each} for each in ids]}}
        assert values[AUDIT_RECORDED] == {"boolValue": True}
        assert trace_id in jaeger.search(SERVICE, {AUDIT_RECORDED: "true"})
        assert jaeger.spans(other.trace_id.hex()) == []
