"""Looking at the audit trail over HTTP: every filter, pages without gaps, records that can be checked."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from service.roles import AUDITOR, OPERATOR
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from tests.support.api import TRACE_URL, ApiUnderTest, Client, Record
from tests.support.both_stores import BOTH, Store

pytestmark = pytest.mark.stores(*BOTH)

RECORDS = "/v1/audit/records"


def _attribute(name: str) -> Callable[[Record], Any]:
    return lambda record: record.attributes.get(name)


# Where each filter of the query looks.
FILTERS: Mapping[str, Callable[[Record], Any]] = {
    "actor_id": _attribute(names.AUDIT_ACTOR_ID),
    "action": _attribute(names.AUDIT_ACTION),
    "event_name": lambda record: record.row.event_name,
    "outcome": _attribute(names.AUDIT_OUTCOME),
    "result": _attribute(names.AUDITRACE_RESULT),
    "target_type": _attribute(names.AUDIT_TARGET_TYPE),
    "target_id": _attribute(names.AUDIT_TARGET_ID),
    "trace_id": lambda record: record.body["trace_id"],
    "span_id": lambda record: record.body["span_id"],
    "job_id": _attribute(names.AUDITRACE_JOB_ID),
    "stream_id": lambda record: record.row.stream_id,
    "request_id": _attribute(names.AUDITRACE_REQUEST_ID),
    "tenant_id": _attribute(names.AUDITRACE_TENANT_ID),
    "initiator_id": _attribute(names.AUDITRACE_INITIATOR_ID),
    "actor_issuer": _attribute(names.AUDITRACE_ACTOR_ISSUER),
}


@pytest.fixture(scope="module")
def api(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiUnderTest]:
    """An API with a story behind it: two actors, two jobs, successes, no-ops and refusals, in two streams."""
    opened = ApiUnderTest(shared_store, tmp_path_factory.mktemp("audit"))
    anna, ben = opened.client("anna"), opened.client("ben", OPERATOR)
    anna.finished_job("exit_code")
    job = ben.new_job()
    ben.post(f"/v1/jobs/{job['id']}/run", headers={"X-Request-Id": "asked-by-ben"})
    for _ in range(2):
        ben.post(f"/v1/jobs/{job['id']}/cancel")
    ben.post(f"/v1/jobs/{job['id']}/confirm", {"confirmed": True})
    Client(opened, None).get("/v1/jobs")
    shared_store.lane().submit(lambda transaction: transaction.save(shared_store.fact())).result()
    opened.client("ann", tenant="other").new_job()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def auditor(api: ApiUnderTest) -> Client:
    """Someone who looks."""
    return api.client("alma", AUDITOR)


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_shows_what_matches_and_nothing_else(api: ApiUnderTest, auditor: Client, name: str) -> None:
    """For every value that occurs, the filter gives exactly the records that hold it, newest first."""
    own = [record for record in api.records() if record[names.AUDITRACE_TENANT_ID] == "default"]
    values = {FILTERS[name](record) for record in own} - {None}
    assert values
    for value in sorted(values)[:6]:
        before = api.records(tenant_id="default")
        answer = auditor.get(f"{RECORDS}?{urlencode({name: value, 'limit': 1000})}")
        assert answer.status_code == 200, answer.text
        expected = [record.row.record_id for record in reversed(before) if FILTERS[name](record) == value]
        assert [each["record_id"] for each in answer.json()["records"]] == expected
        assert expected


def test_filters_narrow_each_other(api: ApiUnderTest, auditor: Client) -> None:
    """Several filters show the records that match all of them; a value that nothing has shows none."""
    found = auditor.get(f"{RECORDS}?actor_id=ben&outcome=failure&event_name=job.run.trigger").json()["records"]
    assert [each["attributes"][names.AUDITRACE_REQUEST_ID] for each in found] == ["asked-by-ben"]
    assert auditor.get(f"{RECORDS}?actor_id=ben&actor_id=").status_code == 400
    assert auditor.get(f"{RECORDS}?actor_id=ben'--").json() == {"records": [], "next_cursor": None}
    assert auditor.get(f"{RECORDS}?actor_id=%25").json()["records"] == []


def test_a_filter_takes_several_values_and_leaves_out_others(api: ApiUnderTest, auditor: Client) -> None:
    """A repeated parameter is any of its values, `not_` leaves out, and a beginning stands for all that begin so."""
    before = list(reversed(api.records(tenant_id="default")))
    query = "event_name=job.*&not_event_name=job.status.transition&not_event_name=job.run.*&result=noop&result=success"
    answer = auditor.get(f"{RECORDS}?{query}&limit=1000")
    expected = [
        record.row.record_id
        for record in before
        if record.row.event_name.startswith("job.")
        and record.row.event_name not in {"job.status.transition", "job.run.trigger"}
        and record[names.AUDITRACE_RESULT] in {"noop", "success"}
    ]
    assert expected
    assert [each["record_id"] for each in answer.json()["records"]] == expected


def test_the_oldest_can_come_first(api: ApiUnderTest, auditor: Client) -> None:
    """`order=asc` shows the same records from the other end, and its cursor is refused by the other order."""
    newest_first = [each["record_id"] for each in _walk(auditor, "event_name=job.*", limit=3)]
    oldest_first = [each["record_id"] for each in _walk(auditor, "event_name=job.*&order=asc", limit=3)]
    assert len(newest_first) > 3
    assert oldest_first == newest_first[::-1]
    for order, other in (("asc", "desc"), ("desc", "asc")):
        cursor = auditor.get(f"{RECORDS}?limit=1&order={order}").json()["next_cursor"]
        problem = auditor.get(f"{RECORDS}?limit=1&order={other}&cursor={cursor}").json()
        assert (problem["status"], "cursor is not one" in problem["detail"]) == (400, True)


def test_since_is_inclusive_and_until_is_not(api: ApiUnderTest, auditor: Client) -> None:
    """`since` a record's observed time shows it, `until` that time does not: windows that touch never overlap."""
    records = api.records(tenant_id="default")
    middle = records[len(records) // 2]
    time = rfc3339_nanos(middle.row.observed_ns)
    later = [each["record_id"] for each in _walk(auditor, f"since={time}", limit=1000)]
    earlier = [each["record_id"] for each in _walk(auditor, f"until={time}", limit=1000)]
    assert later[-1] == middle.row.record_id
    assert middle.row.record_id not in earlier
    assert set(earlier) | set(later) >= {record.row.record_id for record in records}
    assert not set(earlier) & set(later)


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.5z", "2026-01-02 03:04:05%2B00:00"])
def test_times_come_in_every_form_of_the_standard(auditor: Client, time: str) -> None:
    """RFC 3339 times with any fraction and offset are understood."""
    assert auditor.get(f"{RECORDS}?since={time}&limit=1").status_code == 200


def test_pages_cover_everything_once_while_records_are_added(api: ApiUnderTest, auditor: Client) -> None:
    """Following the cursor shows every record there was, once, in order, though each look itself adds records."""
    before = [record.row.record_id for record in api.records(tenant_id="default")]
    writer, seen, cursor = api.someone(OPERATOR), [], ""
    while cursor is not None:
        page = auditor.get(f"{RECORDS}?tenant_id=default&limit=3{cursor and f'&cursor={cursor}'}").json()
        seen += [each["record_id"] for each in page["records"]]
        assert len(page["records"]) <= 3
        cursor = page["next_cursor"]
        writer.new_job()
    assert len(seen) == len(set(seen))
    assert seen[-len(before) :] == list(reversed(before))


def test_pages_of_jobs_cover_everything_once_while_jobs_are_made(api: ApiUnderTest) -> None:
    """The same of jobs: newest first, none twice, none left out, and none that came later."""
    client = api.someone()
    made = [client.new_job()["id"] for _ in range(7)]
    seen, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/v1/jobs?created_by={client.name}&limit=2{cursor and f'&cursor={cursor}'}").json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        client.new_job()
    assert seen == list(reversed(made))


def test_jobs_are_filtered_by_status_template_and_creator(api: ApiUnderTest) -> None:
    """Each filter of the listing of jobs, and all together, show what matches."""
    client = api.someone()
    greeting, counting = client.new_job(), client.new_job("line-count", path="/etc/hosts")
    client.post(f"/v1/jobs/{counting['id']}/draft")

    def listed(query: str) -> set[str]:
        return {job["id"] for job in client.get(f"/v1/jobs?created_by={client.name}&{query}").json()["jobs"]}

    assert listed("limit=9") == {greeting["id"], counting["id"]}
    assert listed("status=created") == listed("template=greet") == {greeting["id"]}
    assert listed("status=draft_ready&template=line-count") == {counting["id"]}
    assert listed("status=draft_ready&template=greet") == set()


def test_polling_with_since_misses_nothing(api: ApiUnderTest, auditor: Client) -> None:
    """Who asks again since the last observed time gets that record and all that were committed after it."""
    last = api.records(tenant_id="default")[-1]
    made = [api.someone(OPERATOR).new_job()["audit"]["record_id"] for _ in range(3)]
    found = [each["record_id"] for each in _walk(auditor, f"since={rfc3339_nanos(last.row.observed_ns)}", limit=2)]
    assert last.row.record_id in found
    assert set(made) <= set(found)


def test_a_record_can_be_checked_by_whoever_gets_it(api: ApiUnderTest, auditor: Client) -> None:
    """Listing and single record show the body as it was hashed, its hash, its place, its trace, and where to go on."""
    job = api.someone(OPERATOR).new_job()
    record = auditor.get(f"{RECORDS}/{job['audit']['record_id']}").json()
    assert hashlib.sha256(record["body"].encode()).hexdigest() == record["record_hash"] == job["audit"]["record_hash"]
    assert (record["stream_id"], record["sequence_number"]) == (
        job["audit"]["stream_id"],
        job["audit"]["sequence_number"],
    )
    assert record["attributes"][names.AUDIT_TARGET_ID] == job["id"]
    assert record["trace_id"] == job["trace_id"]
    assert record["links"] == {
        "self": f"{RECORDS}/{record['record_id']}",
        "job": f"/v1/jobs/{job['id']}",
        "trace": TRACE_URL.replace("{trace_id}", job["trace_id"]),
    }
    (listed,) = auditor.get(f"{RECORDS}?target_id={job['id']}").json()["records"]
    (of_job,) = auditor.get(f"/v1/jobs/{job['id']}/audit").json()["records"]
    assert listed == of_job == record


def test_the_records_of_a_stream_link_to_each_other(api: ApiUnderTest, auditor: Client) -> None:
    """What a listing shows of one tenant's stream names, record by record, the one before it."""
    stream_id = api.records(tenant_id="default")[0].row.stream_id
    records = list(reversed(_walk(auditor, f"stream_id={stream_id}", limit=1000)))
    for earlier, later in pairwise(records):
        if later["sequence_number"] == earlier["sequence_number"] + 1:
            assert later["attributes"][names.AUDIT_SEQUENCE_PREV_HASH] == earlier["record_hash"]
            assert later["attributes"][names.AUDIT_SEQUENCE_PREV_RECORD_ID] == earlier["record_id"]


def test_the_trail_of_a_job_tells_its_story(api: ApiUnderTest, auditor: Client) -> None:
    """The trail of a job holds what clients and workers did to it, refused attempts included, page by page."""
    client = api.someone()
    job = client.finished_job()
    client.post(f"/v1/jobs/{job['id']}/retry")
    told: list[tuple[str, str]] = []
    cursor = ""
    while cursor is not None:
        page = auditor.get(f"/v1/jobs/{job['id']}/audit?limit=2{cursor and f'&cursor={cursor}'}").json()
        told += [(each["event_name"], each["attributes"][names.AUDITRACE_RESULT]) for each in page["records"]]
        cursor = page["next_cursor"]
    assert told == [
        (names.EVENT_JOB_RETRY, "rejected"),
        (names.EVENT_JOB_STATUS_TRANSITION, "success"),
        (names.EVENT_JOB_STATUS_TRANSITION, "success"),
        (names.EVENT_JOB_RUN_TRIGGER, "success"),
        (names.EVENT_JOB_DRAFT, "success"),
        (names.EVENT_JOB_CREATE, "success"),
    ]


def test_the_delivery_of_a_record_can_be_followed(store: Store, tmp_path: Path) -> None:
    """A record is `committed` until the cursor of its stream has passed it, then `delivered`, or `parked` for good."""
    api = ApiUnderTest(store, tmp_path)
    client = api.client("anna")
    receipts = [client.new_job()["audit"] for _ in range(3)]
    stream_id = receipts[0]["stream_id"]

    def states() -> list[str]:
        return [client.get(f"{RECORDS}/{receipt['record_id']}").json()["delivery"] for receipt in receipts]

    assert states() == ["committed", "committed", "committed"]
    store.execute(
        "INSERT INTO parked_records (stream_id, number, reason, parked_ns) VALUES (?, ?, '400', 1)",
        stream_id,
        receipts[0]["sequence_number"],
    )
    store.execute(
        "UPDATE delivery_cursors SET number = ? WHERE stream_id = ?", receipts[1]["sequence_number"], stream_id
    )
    assert states() == ["parked", "delivered", "committed"]
    assert {each["delivery"] for each in client.get(RECORDS).json()["records"]} == {
        "parked",
        "delivered",
        "committed",
    }
    api.close()


def _walk(client: Client, query: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = client.get(f"{RECORDS}?{query}&limit={limit}{cursor and f'&cursor={cursor}'}").json()
        found += page["records"]
        cursor = page["next_cursor"]
    return found
