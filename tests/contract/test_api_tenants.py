"""Tenants do not see each other: neither jobs, nor records, nor artifacts, nor whether any of them exist."""

from collections.abc import Mapping
from typing import Any

import pytest

from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

NONE = "019b76da-a800-7000-8000-000000000000"


@pytest.fixture
def ours(api: ApiUnderTest) -> Client:
    """An administrator of one tenant."""
    return api.client("anna", tenant="ours")


@pytest.fixture
def theirs(api: ApiUnderTest) -> Client:
    """An administrator of another tenant, under the same name."""
    return api.client("anna", tenant="theirs")


def test_listings_show_the_own_tenant_only(api: ApiUnderTest, ours: Client, theirs: Client) -> None:
    """Jobs and records of one tenant appear in no listing of another, whatever the filter asks for."""
    job, other = ours.new_job(), theirs.new_job()
    assert [each["id"] for each in ours.get("/v1/jobs").json()["jobs"]] == [job["id"]]
    assert ours.get("/v1/jobs?created_by=anna").json()["jobs"][0]["tenant_id"] == "ours"
    for query in ("", "?actor_id=anna", f"?job_id={other['id']}", f"?trace_id={other['trace_id']}", "?tenant_id=ours"):
        records = ours.get(f"/v1/audit/records{query}").json()["records"]
        assert {each["attributes"][names.AUDITRACE_TENANT_ID] for each in records} <= {"ours"}
        assert other["id"] not in str(records).replace(f"job_id={other['id']}", "")


def test_another_tenant_cannot_be_asked_for(api: ApiUnderTest, ours: Client) -> None:
    """A filter that names another tenant is refused and recorded, for administrators too."""
    with api.leaves(names.EVENT_AUDIT_READ) as left:
        answer = ours.get("/v1/audit/records?tenant_id=theirs")
    problem_of(answer, 403, "forbidden")
    assert left[0].result == "denied"
    assert left[0][names.AUDITRACE_TENANT_ID] == "ours"


def test_what_another_tenant_has_does_not_exist(api: ApiUnderTest, ours: Client, theirs: Client) -> None:
    """Every route answers for another tenant's job exactly as for one that never was, and records the attempt here."""
    job = theirs.finished_job(artifacts={"out.txt": b"theirs"})
    before = theirs.get(f"/v1/jobs/{job['id']}").json()
    for event, method, path, more in _routes(job):
        with api.leaves(*([event] if event else [])) as left:
            foreign = ours.request(method, path, **more)
        missing = ours.request(method, path.replace(job["id"], NONE), **more)
        assert foreign.status_code == missing.status_code == 404
        ignored = {"request_id", "trace_id", "audit_record_id", "audit"}
        problems = [
            {name: value for name, value in answer.json().items() if name not in ignored}
            for answer in (foreign, missing)
        ]
        assert problems[0] == problems[1]
        assert all(record[names.AUDITRACE_TENANT_ID] == "ours" for record in left)
    assert theirs.get(f"/v1/jobs/{job['id']}").json() == before
    problem_of(ours.get(f"/v1/audit/records/{job['audit']['record_id']}"), 404, "not_found")


def test_the_attempt_shows_in_the_tenant_that_made_it_only(api: ApiUnderTest, ours: Client, theirs: Client) -> None:
    """A refused attempt on another tenant's job is in the trail of who tried, not in that of the job's owner."""
    job = theirs.new_job()
    ours.post(f"/v1/jobs/{job['id']}/cancel")
    tried = ours.get(f"/v1/audit/records?target_id={job['id']}").json()["records"]
    assert [each["event_name"] for each in tried] == [names.EVENT_JOB_CANCEL]
    seen = theirs.get(f"/v1/audit/records?target_id={job['id']}").json()["records"]
    assert [each["event_name"] for each in seen] == [names.EVENT_JOB_CREATE]


def test_the_records_of_the_ledger_itself_belong_to_the_default_tenant(api: ApiUnderTest, ours: Client) -> None:
    """Openings of streams are seen by auditors of the tenant `default`, and by no other's."""
    opened = f"/v1/audit/records?event_name={names.EVENT_AUDIT_STREAM_OPEN}"
    assert ours.get(opened).json()["records"] == []
    assert len(api.client("alma").get(opened).json()["records"]) == 1


def _routes(job: Mapping[str, Any]) -> list[tuple[str | None, str, str, dict[str, Any]]]:
    path = f"/v1/jobs/{job['id']}"
    confirmation = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    return [
        (None, "GET", path, {}),
        (None, "GET", f"{path}/runs", {}),
        (None, "GET", f"{path}/runs/1/artifacts", {}),
        (names.EVENT_ARTIFACT_READ, "GET", f"{path}/runs/1/artifacts/out.txt", {}),
        (names.EVENT_AUDIT_READ, "GET", f"{path}/audit", {}),
        (names.EVENT_INPUT_WRITE, "PUT", f"{path}/inputs/a.txt", {"content": b"x"}),
        (names.EVENT_JOB_DRAFT, "POST", f"{path}/draft", {}),
        (names.EVENT_JOB_CONFIRM, "POST", f"{path}/confirm", {"json": confirmation}),
        (names.EVENT_JOB_RUN_TRIGGER, "POST", f"{path}/run", {}),
        (names.EVENT_JOB_RETRY, "POST", f"{path}/retry", {}),
        (names.EVENT_JOB_CANCEL, "POST", f"{path}/cancel", {}),
    ]
