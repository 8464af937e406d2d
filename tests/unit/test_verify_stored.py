"""Rows of a database: what would be delivered of them verifies like an archive, and what is shown is the same."""

import json
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from telemetry.audit.verify import Found, SourcePlace, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.otlp_stored import found_in_row
from tests.support.archive import message_of
from tests.support.ledger_maker import KEY, Ledger, Sealed

PLACE = SourcePlace("database", 1)


def ledger() -> Ledger:
    """Return a ledger with values of every type."""
    made = Ledger()
    made.append(1, **{"auditrace.changes": {"a": {"from": True, "to": [1, "two"]}}, "auditrace.truncated": ["x"]})
    made.checkpoint(1)
    return made


def row(record: Sealed) -> tuple[str, bytes, bytes]:
    """Return a record as a database holds it: text, log record, resource."""
    (resource_logs,) = message_of(json.loads(record.line())).resource_logs
    (scope_logs,) = resource_logs.scope_logs
    (log_record,) = scope_logs.log_records
    return record.text, log_record.SerializeToString(), resource_logs.resource.SerializeToString()


def test_a_row_says_what_its_line_in_an_archive_says() -> None:
    """A stored record and its line of OTLP JSON are understood alike, field by field."""
    for record in ledger().records:
        (stored,) = found_in_row(*row(record), PLACE)
        (line,) = records_of_line(f"{record.line()}\n".encode(), PLACE)
        assert stored.body == line.body
        assert stored.index is not None
        assert line.index is not None
        assert dict(stored.index.attributes) == dict(line.index.attributes)
        assert stored.index.resource == line.index.resource
        for field in (
            "trace_id",
            "span_id",
            "time_unix_nano",
            "observed_time_unix_nano",
            "event_name",
            "severity_number",
        ):
            assert getattr(stored.index, field) == getattr(line.index, field), field
        assert (stored.index.flags or 0) == (line.index.flags or 0)


def test_rows_verify() -> None:
    """All rows of a ledger verify, the signatures of checkpoints included."""
    found = [one for record in ledger().records for one in found_in_row(*row(record), PLACE)]
    report = verify(found, public_keys=[KEY.public_key()])

    assert (report.verdict, report.findings) == ("intact", ())
    assert report.last_checkpoint is not None


def test_a_text_that_is_not_what_is_delivered_is_found() -> None:
    """A text that was changed beside the log record that holds it is another record under the same id."""
    made = ledger()
    found: list[Found] = []
    for record in made.records:
        text, otlp, resource = row(record)
        shown = text.replace("alice", "eve")
        found.extend(found_in_row(shown, otlp, resource, PLACE))

    (finding,) = verify(found, public_keys=[KEY.public_key()]).findings
    assert (finding.code, finding.number) == ("conflicting_duplicate", 2)


def test_bytes_that_are_no_log_record_are_found() -> None:
    """What cannot be delivered is a record without a body; the text beside it is a copy of its own."""
    text, _, resource = row(ledger().records[0])

    delivered, shown = found_in_row(text, b"\xff\xff", resource, PLACE)
    assert (delivered.body, shown.body) == (None, text)
    assert found_in_row(text, b"", b"\xff\xff", PLACE)[0].body is None


def test_a_body_that_is_no_text_is_found() -> None:
    """A log record whose body is not a string has none."""
    export: dict[str, Any] = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"intValue": "7"}}]}]}]}
    request = Parse(json.dumps(export), ExportLogsServiceRequest())
    otlp = request.resource_logs[0].scope_logs[0].log_records[0].SerializeToString()

    assert found_in_row("7", otlp, b"", PLACE)[0].body is None
