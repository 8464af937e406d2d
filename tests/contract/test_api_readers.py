"""Who may look: auditors at jobs but not at what they wrote, approvers at the records of jobs that they may decide."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.roles import APPROVER, ARTIFACT_READER, AUDITOR, OPERATOR
from telemetry import names
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

Look = Callable[[], httpx.Response]


EVENTS = (names.EVENT_AUDIT_READ, names.EVENT_AUDIT_READ, names.EVENT_AUDIT_VERIFY)


def _looks(client: Client, job: dict[str, Any]) -> list[Look]:
    """Return the three ways in which a client can look at the records of a job; `EVENTS` are recorded for them."""
    record = f"/v1/audit/records/{job['audit']['record_id']}"
    paths = (f"/v1/jobs/{job['id']}/audit", record, f"{record}/proof")
    return [lambda path=path: client.get(path) for path in paths]


def _assert_allowed(api: ApiUnderTest, client: Client, job: dict[str, Any]) -> None:
    for event, look in zip(EVENTS, _looks(client, job), strict=True):
        with api.leaves(event) as left:
            assert look().status_code == 200
        assert left[0][names.AUDIT_ACTOR_ID] == client.name


def _assert_refused(api: ApiUnderTest, client: Client, job: dict[str, Any], status: int = 403) -> None:
    for event, look in zip(EVENTS, _looks(client, job), strict=True):
        api.refused(event, status, "forbidden" if status == 403 else "not_found", look)


def test_an_approver_reads_the_records_of_a_job_to_decide(api: ApiUnderTest) -> None:
    """From the draft on, whatever becomes of the job; each such read is recorded as an auditor's is."""
    operator, approver = api.client("anna", OPERATOR), api.client("ben", APPROVER)
    job = operator.new_job("line-count", path="/etc/hosts")
    _assert_refused(api, approver, job)
    drafted = operator.post(f"/v1/jobs/{job['id']}/draft").json()
    _assert_allowed(api, approver, drafted)
    api.client("cleo", APPROVER).post(f"/v1/jobs/{job['id']}/reject", {"reason": "no"})
    third = api.client("dora", APPROVER)
    assert third.get(f"/v1/jobs/{job['id']}/audit").status_code == 200
    found = third.get(f"/v1/jobs/{job['id']}/audit").json()["records"]
    assert [each["event_name"] for each in found] == ["job.reject", "job.draft", "job.create"]


def test_four_eyes_hold_for_records_too(api: ApiUnderTest) -> None:
    """The creator of a job on which another must decide reads its records as an auditor only; else as an approver."""
    both = api.client("omar", OPERATOR, APPROVER)
    guarded = both.drafted_job("line-count", path="/etc/hosts")
    problem, _ = api.refused(
        names.EVENT_AUDIT_READ, 403, "forbidden", lambda: both.get(f"/v1/jobs/{guarded['id']}/audit")
    )
    assert "role auditor" in problem["detail"]
    free = both.drafted_job("greet", name="x")
    assert both.get(f"/v1/jobs/{free['id']}/audit").status_code == 200
    assert api.client("max", AUDITOR).get(f"/v1/jobs/{guarded['id']}/audit").status_code == 200


def test_an_approver_reads_nothing_else_of_the_trail(api: ApiUnderTest) -> None:
    """Records of other things, of other tenants, and of nothing are refused; so are listings and exports."""
    approver = api.client("ben", APPROVER)
    theirs = api.client("anna", tenant="theirs").drafted_job("greet", name="x")
    listing, record, proof = _looks(approver, theirs)
    api.refused(names.EVENT_AUDIT_READ, 404, "not_found", listing)
    api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", record)
    api.refused(names.EVENT_AUDIT_VERIFY, 403, "forbidden", proof)
    made = api.records(event_name=names.EVENT_KEY_CREATE)[0].row.record_id
    none = "019b76da-a800-7000-8000-000000000000"
    for path in (f"records/{made}", f"records/{none}", "records", "streams", "checkpoints"):
        api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda path=path: approver.get(f"/v1/audit/{path}"))
    api.refused(names.EVENT_AUDIT_EXPORT, 403, "forbidden", lambda: approver.get("/v1/audit/export"))


def test_an_auditor_sees_jobs_and_no_bytes_of_theirs(api: ApiUnderTest) -> None:
    """Plans, runs and the hashes of artifacts are shown; bytes, and the end of standard error, need another role."""
    job = api.client("anna").finished_job("exit", {"out.txt": b"hello"}, stderr_end="the secret of a command")
    path = f"/v1/jobs/{job['id']}"
    auditor = api.client("max", AUDITOR)
    (run,) = auditor.get(path).json()["runs"]
    assert auditor.get(path).json()["plan"] == job["plan"]
    assert (run["exit_code"], "stderr_end" in run) == (1, False)
    assert "secret" not in auditor.get(f"{path}/runs").text
    (artifact,) = auditor.get(f"{path}/runs/1/artifacts").json()["artifacts"]
    assert (artifact["name"], artifact["size"]) == ("out.txt", 5)
    problem, _ = api.refused(
        names.EVENT_ARTIFACT_READ, 403, "forbidden", lambda: auditor.get(artifact["links"]["self"])
    )
    assert ARTIFACT_READER in problem["detail"]
    reader = api.client("mia", AUDITOR, ARTIFACT_READER)
    assert reader.get(artifact["links"]["self"]).content == b"hello"
    assert reader.get(path).json()["runs"][0]["stderr_end"] == "the secret of a command"
