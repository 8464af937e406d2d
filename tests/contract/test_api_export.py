"""The export over HTTP: everything once, oldest first, in forms that others read, on record before the first byte."""

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest

from service.jobs.model import TenantId
from service.operations import exports
from service.ports import RecordFilter
from service.records import AuditContext
from service.roles import AUDITOR, OPERATOR, ROLES
from telemetry import names
from telemetry.audit.record import Actor
from telemetry.audit.verify import Found, read_copy, verify
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH
from tests.support.ledger_maker import KEY
from tests.support.outages import OUTAGES

pytestmark = pytest.mark.stores(*BOTH)

EXPORT = "/v1/audit/export"
EVENT = names.EVENT_AUDIT_EXPORT


@pytest.fixture
def auditor(api: ApiUnderTest) -> Client:
    """Someone who takes the trail away."""
    return api.client("alma", AUDITOR)


@pytest.mark.parametrize("rows_at_once", [2, 500])
def test_an_export_verifies_as_the_archive_does(
    api: ApiUnderTest, auditor: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """The lines of OTLP JSON are a complete copy: `verify` finds it intact, up to the export's own record."""
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", rows_at_once)
    api.someone().finished_job()
    assert api.checkpoints.hold()
    api.checkpoints.write()
    with api.leaves(EVENT) as left:
        answer = auditor.get(EXPORT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.otlp.jsonl"'
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "audit.otlp.jsonl"
    copy.write_bytes(answer.content)
    report = verify(read_copy([copy]), public_keys=[KEY.public_key()])
    assert (report.verdict, report.findings) == ("intact", ())
    assert (report.records, report.checkpoints) == (len(api.records()), 1)
    found = [each for each in read_copy([copy]) if isinstance(each, Found)]
    assert json.loads(found[-1].body or "")["attributes"][names.AUDIT_RECORD_ID] == left[0].row.record_id


def test_lines_of_bodies_hash_to_the_records(api: ApiUnderTest, auditor: Client) -> None:
    """`jsonl` has the bodies byte for byte: the hash of each line is the record's."""
    api.someone().finished_job()
    lines = auditor.get(f"{EXPORT}?format=jsonl").content.splitlines()
    assert [hashlib.sha256(line).hexdigest() for line in lines] == [each.row.record_hash for each in api.records()]


def test_a_table_can_be_opened_by_anybody(api: ApiUnderTest, auditor: Client) -> None:
    """`csv` has a head, a row for each record, and no cell that a spreadsheet would compute."""
    client = api.someone(OPERATOR)
    body = {"template": "=HYPERLINK(1)", "parameters": {}}
    client.post("/v1/jobs", body, headers={"X-Request-Id": "-1"})
    answer = auditor.get(f"{EXPORT}?format=csv&actor_id={client.name}")
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
    record = api.record(actor_id=client.name).row
    assert (row["record_id"], row["sequence_number"]) == (record.record_id, str(record.sequence_number))
    assert (row["event_name"], row["outcome"], row["result"]) == ("job.create", "failure", "rejected")
    assert row["request_id"] == "'-1"
    assert "=HYPERLINK(1)" in row["reason"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


def test_a_table_says_who_asked_behind_the_columns_of_before(api: ApiUnderTest, auditor: Client) -> None:
    """New columns stand at the end, so that readers by position go on; a worker's rows name who asked for the run."""
    client = api.someone()
    job = client.finished_job()
    table = auditor.get(f"{EXPORT}?format=csv&job_id={job['id']}").text
    head, *_ = csv.reader(io.StringIO(table, newline=""))
    assert head[-6:] == ["trace_id", "span_id", "initiator_id", "template", "run", "user_agent"]
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    by_worker = [row for row in rows if row["event_name"] == "job.status.transition"]
    assert by_worker
    assert {(row["initiator_id"], row["template"], row["run"]) for row in by_worker} == {
        (client.name, job["template"], "1")
    }
    assert {row["initiator_id"] for row in rows if row not in by_worker} == {""}
    assert {row["user_agent"] for row in rows if row["event_name"] == "job.create"} == {"tests/1"}


def test_an_export_takes_several_values_and_exclusions(api: ApiUnderTest, auditor: Client) -> None:
    """What is left out of a listing is left out of an export in the same words, and its record repeats them."""
    client = api.someone()
    client.finished_job()
    query = "not_event_name=audit.*&event_name=job.*&event_name=key.create&initiator_id=nobody&not_result=error"
    with api.leaves(EVENT) as left:
        assert auditor.get(f"{EXPORT}?format=jsonl&{query}").content == b""
    assert left[0].changes["filter"] == {
        "to": "event_name=job.%2A&event_name=key.create&initiator_id=nobody&not_event_name=audit.%2A&not_result=error"
    }
    with api.leaves(EVENT):
        lines = auditor.get(f"{EXPORT}?format=jsonl&not_event_name=job.*&include_trail=false").text.splitlines()
    assert {json.loads(line)["event_name"] for line in lines} == {"key.create", "audit.export"}


def test_an_export_is_recorded_with_what_was_taken(api: ApiUnderTest, auditor: Client) -> None:
    """The record names filter and format, and is committed before the first byte; each export has its own."""
    with api.leaves(EVENT, EVENT) as left:
        for _ in range(2):
            auditor.get(f"{EXPORT}?format=jsonl&outcome=failure&since=2026-01-01T00:00:00Z")
    assert left[0].changes == {
        "filter": {"to": "outcome=failure&since=2026-01-01T00%3A00%3A00.000000000Z"},
        "format": {"to": "jsonl"},
    }
    assert left[0].target == ("ledger", "auditrace")
    assert left[0][names.AUDIT_ACTION] == "EXPORT"


def test_filters_choose_what_is_exported(api: ApiUnderTest, auditor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export takes the filters of the listing, and holds exactly what the listing shows, in one piece or many."""
    client = api.someone()
    job = client.finished_job()
    exported = auditor.get(f"{EXPORT}?format=jsonl&job_id={job['id']}").text.splitlines()
    assert exported == [record.row.body for record in api.records(job_id=job["id"])]
    assert auditor.get(f"{EXPORT}?format=jsonl&actor_id=nobody").content == b""
    head = auditor.get(f"{EXPORT}?format=csv&actor_id=nobody").text.splitlines()
    assert len(head) == 1
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 2)
    table = list(csv.reader(io.StringIO(auditor.get(f"{EXPORT}?format=csv&job_id={job['id']}").text, newline="")))
    assert [row[0] for row in table] == [
        "record_id",
        *(record.row.record_id for record in api.records(job_id=job["id"])),
    ]


def test_what_comes_later_is_not_part_of_it(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page fixes the end: records that are added while the export runs wait for the next one."""
    client = api.someone()
    for _ in range(3):
        client.new_job()
    before = [record.row.record_id for record in api.records()]
    taken: list[str] = []
    cursor = None
    while True:
        page = api.store.reads.stored(RecordFilter(), cursor, 2)
        taken += [row.record.record_id for row in page.rows]
        client.new_job()
        cursor = page.next_cursor
        if cursor is None:
            break
    assert taken == before


def test_a_tenant_takes_its_own_records_only(api: ApiUnderTest, auditor: Client) -> None:
    """Nothing of another tenant is in an export, and asking for it is refused and recorded."""
    api.client("ann", tenant="other").new_job()
    bodies = [json.loads(line) for line in auditor.get(f"{EXPORT}?format=jsonl").text.splitlines()]
    assert {body["attributes"][names.AUDITRACE_TENANT_ID] for body in bodies} == {"default"}
    api.refused(EVENT, 403, "forbidden", lambda: auditor.get(f"{EXPORT}?tenant_id=other"))


@pytest.mark.parametrize(
    "query", ["format=xml", "format=", "limit=5", "cursor=WzFd", "since=x", "format=csv&format=jsonl"]
)
def test_an_export_that_is_not_understood_is_refused(api: ApiUnderTest, auditor: Client, query: str) -> None:
    """An unknown format, and pages, which an export has not, are 400 with a record under `audit.export`."""
    _, record = api.refused(EVENT, 400, "invalid_request", lambda: auditor.get(f"{EXPORT}?{query}"))
    assert record.target == ("ledger", "auditrace")


def test_exports_are_for_auditors(api: ApiUnderTest, auditor: Client) -> None:
    """Every other role is refused with a record; HEAD, which would export nothing, is not known."""
    for role in set(ROLES) - {AUDITOR, "admin"}:
        client = api.someone(role)
        api.refused(EVENT, 403, "forbidden", lambda client=client: client.get(EXPORT))
    assert auditor.request("HEAD", EXPORT).status_code == 405


def test_an_export_that_cannot_be_recorded_hands_out_nothing(api: ApiUnderTest, auditor: Client) -> None:
    """While the ledger takes no record the answer is 503 and has no line of the trail."""
    unwritable, error_type = OUTAGES[api.store.kind, "read-only"]
    with unwritable(api.store, api.lane):
        answer = auditor.get(EXPORT)
    problem_of(answer, 503, error_type)


def test_a_long_export_is_never_whole_in_memory(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are read as the receiver takes them: what was not asked for yet was not read."""
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 1)
    client = api.someone()
    for _ in range(5):
        client.new_job()
    asked: list[int] = []
    reads = api.store.reads
    stored = reads.stored
    monkeypatch.setattr(reads, "stored", lambda *arguments: (asked.append(1), stored(*arguments))[1])

    context = AuditContext(
        actor=Actor("alma", "user", "key"), tenant_id=TenantId("default"), source="api", roles=frozenset({AUDITOR})
    )

    async def take(count: int) -> int:
        export = exports.AuditExport(
            api.services, context, api.services.tracing.root("export"), reads, api.parts.bulk_threads
        )
        parts = await export.begin(RecordFilter(), exports.ExportFormat.JSONL)
        for _ in range(count):
            await anext(parts)
        return len(asked)

    assert api.wait(take(2)) == 2
