"""Confirming, rejecting, cancelling and retrying over HTTP: what is answered, and exactly which record is left."""

import hashlib
import json
from typing import Any

import pytest

from service.jobs.model import Job
from service.roles import APPROVER, OPERATOR
from telemetry import names
from tests.support.api import ApiUnderTest, Client, Record
from tests.support.both_stores import BOTH, Store
from tests.support.stores import new_job

pytestmark = pytest.mark.stores(*BOTH)

LONGEST = "é" * 2048
"""4 KiB of UTF-8."""
UNSEEN = "\u200b\u2060 \n"

# What every record of a request has; its values are tested elsewhere.
COMMON = {
    *names.ALWAYS,
    *names.ALWAYS_BEYOND_1_0_0,
    names.AUDIT_SEQUENCE_PREV_HASH,
    names.AUDIT_SEQUENCE_PREV_RECORD_ID,
    names.AUDITRACE_CREDENTIAL_ID,
    names.AUDITRACE_REQUEST_ID,
    names.AUDIT_SOURCE_TYPE,
    names.AUDIT_SOURCE_ID,
    names.CLIENT_ADDRESS,
    names.USER_AGENT_ORIGINAL,
    names.HTTP_REQUEST_METHOD,
    names.HTTP_ROUTE,
    names.URL_PATH,
}
STATED = (
    names.AUDIT_ACTION,
    names.AUDIT_OUTCOME,
    names.AUDITRACE_RESULT,
    names.AUDIT_TARGET_TYPE,
    names.AUDIT_TARGET_ID,
)


def _own(record: Record) -> dict[str, Any]:
    """Return what a record has beyond the common attributes."""
    return {name: value for name, value in record.attributes.items() if name not in COMMON}


def _drafted(api: ApiUnderTest) -> tuple[Client, Client, dict[str, Any], str]:
    """Return the creator of a draft that another must decide on, an approver, the job and its path."""
    creator, approver = api.client("anna", OPERATOR), api.client("ben", APPROVER)
    job = creator.drafted_job("line-count", path="/etc/hosts")
    return creator, approver, job, f"/v1/jobs/{job['id']}"


def _of_job(job: dict[str, Any], version: int | None) -> dict[str, Any]:
    """Return what every record of this job states."""
    stated = {
        names.AUDITRACE_JOB_ID: job["id"],
        names.AUDITRACE_JOB_TEMPLATE: job["template"],
        names.AUDITRACE_JOB_PLAN_SHA256: job["plan"]["sha256"],
    }
    return stated if version is None else {**stated, names.AUDITRACE_TARGET_VERSION: version}


def test_a_rejection_is_recorded_as_one(api: ApiUnderTest) -> None:
    """`job.reject` has exactly these attributes; the answer tells who, when, why, which plan and by which record."""
    creator, approver, job, path = _drafted(api)
    with api.leaves(names.EVENT_JOB_REJECT) as (left):
        answer = approver.post(f"{path}/reject", {"reason": "the path\nis wrong"})
    (record,) = left
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "rejected", '"3"')
    assert [record[name] for name in STATED] == ["REJECT", "success", "success", "job", job["id"]]
    assert _own(record) == {
        **_of_job(job, 3),
        names.AUDITRACE_REASON: "the path\nis wrong",
        names.AUDITRACE_CHANGES: {
            "status": {"from": "draft_ready", "to": "rejected"},
            "plan_sha256": {"to": job["plan"]["sha256"]},
        },
    }
    assert answer.json()["confirmation"] is None
    assert answer.json()["rejection"] == {
        "by": "ben",
        "issuer": "key",
        "at": record.body["timestamp"],
        "reason": "the path\nis wrong",
        "plan_sha256": job["plan"]["sha256"],
        "record_id": record.row.record_id,
    }
    assert answer.json()["audit"] == record.receipt
    assert creator.get(path).json()["rejection"] == answer.json()["rejection"]


def test_what_was_rejected_is_final(api: ApiUnderTest) -> None:
    """After a rejection every step is 409; rejecting again is a noop, which keeps the first reason."""
    creator, approver, job, path = _drafted(api)
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    approver.post(f"{path}/reject", {"reason": "no"})
    with api.leaves(names.EVENT_JOB_REJECT) as left:
        again = approver.post(f"{path}/reject", {"reason": "still no"})
    assert (left[0].result, _own(left[0])) == ("noop", {**_of_job(job, None), names.AUDITRACE_REASON: "still no"})
    assert (again.status_code, again.json()["version"], again.json()["rejection"]["reason"]) == (200, 3, "no")
    refused = "transition_refused"
    api.refused(names.EVENT_JOB_CONFIRM, 409, refused, lambda: approver.post(f"{path}/confirm", body))
    for event, step in (
        (names.EVENT_JOB_DRAFT, "/draft"),
        (names.EVENT_JOB_RUN_TRIGGER, "/run"),
        (names.EVENT_JOB_RETRY, "/retry"),
        (names.EVENT_JOB_CANCEL, "/cancel"),
    ):
        problem, _ = api.refused(event, 409, refused, lambda step=step: creator.post(path + step))
        assert "rejected" in problem["detail"]
    api.refused(names.EVENT_INPUT_WRITE, 409, refused, lambda: creator.put(f"{path}/inputs/a", b"x"))
    listed = creator.get("/v1/jobs?status=rejected").json()["jobs"]
    assert [each["id"] for each in listed] == [job["id"]]
    assert creator.get(f"{path}?wait=30s").json()["status"] == "rejected"


def test_a_confirmation_that_says_no_is_a_rejection(api: ApiUnderTest) -> None:
    """`/confirm` with `confirmed` false does the same under the same event; its notes are the reason."""
    _, approver, job, path = _drafted(api)
    no = {"confirmed": False}
    for without in (no, {**no, "notes": None}, {**no, "notes": ""}, {**no, "notes": UNSEEN}):
        problem, record = api.refused(
            names.EVENT_JOB_REJECT,
            400,
            "invalid_request",
            lambda without=without: approver.post(f"{path}/confirm", without),
        )
        assert "notes is required" in problem["detail"]
        assert record.target == ("job", job["id"])
    with api.leaves(names.EVENT_JOB_REJECT) as left:
        answer = approver.post(f"{path}/confirm", {**no, "notes": "not on a Friday", "run": True})
    assert _own(left[0])[names.AUDITRACE_REASON] == "not on a Friday"
    assert names.AUDITRACE_NOTES not in left[0].attributes
    assert (answer.json()["status"], answer.json()["rejection"]["reason"]) == ("rejected", "not on a Friday")


def test_what_was_confirmed_can_be_rejected_until_it_is_queued(api: ApiUnderTest) -> None:
    """The answer then has both decisions; a queued job is cancelled instead."""
    creator, approver, job, path = _drafted(api)
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"], "notes": "fine", "run": False}
    confirmed = approver.post(f"{path}/confirm", body).json()
    rejected = approver.post(f"{path}/reject", {"reason": "no, it is not"}).json()
    assert (rejected["status"], rejected["confirmation"]) == ("rejected", confirmed["confirmation"])
    assert rejected["rejection"]["reason"] == "no, it is not"
    other = creator.drafted_job("line-count", path="/etc/hosts")
    path = f"/v1/jobs/{other['id']}"
    approver.post(f"{path}/confirm", {**body, "run": True})
    problem, _ = api.refused(
        names.EVENT_JOB_REJECT, 409, "transition_refused", lambda: approver.post(f"{path}/reject", {"reason": "no"})
    )
    assert "queued" in problem["detail"]


def test_a_rejection_may_name_the_plan(api: ApiUnderTest) -> None:
    """Another plan is 409, a stale version 412; the plan of the job is taken."""
    _, approver, job, path = _drafted(api)
    event, body = names.EVENT_JOB_REJECT, {"reason": "no", "plan_sha256": "0" * 64}
    api.refused(event, 409, "plan_mismatch", lambda: approver.post(f"{path}/reject", body))
    no = {"confirmed": False, "notes": "no", "plan_sha256": "0" * 64}
    api.refused(event, 409, "plan_mismatch", lambda: approver.post(f"{path}/confirm", no))
    stale = {"If-Match": '"1"'}
    api.refused(
        event, 412, "precondition_failed", lambda: approver.post(f"{path}/reject", {"reason": "no"}, headers=stale)
    )
    body["plan_sha256"] = job["plan"]["sha256"]
    assert approver.post(f"{path}/reject", body, headers={"If-Match": '"2"'}).json()["status"] == "rejected"


def test_the_creator_withdraws_and_does_not_reject(api: ApiUnderTest) -> None:
    """With `distinct_confirmer` the creator is 403 even as admin, and is told to cancel; without it may reject."""
    creator = api.client("anna")
    job = creator.drafted_job("line-count", path="/etc/hosts")
    path = f"/v1/jobs/{job['id']}"
    for step, body in (("/reject", {"reason": "no"}), ("/confirm", {"confirmed": False, "notes": "no"})):
        problem, _ = api.refused(
            names.EVENT_JOB_REJECT, 403, "forbidden", lambda step=step, body=body: creator.post(path + step, body)
        )
        assert "cancel" in problem["detail"]
    assert creator.post(f"{path}/cancel").json()["status"] == "cancelled"
    own = creator.drafted_job("greet", name="x")
    assert creator.post(f"/v1/jobs/{own['id']}/reject", {"reason": "no"}).json()["status"] == "rejected"


def test_a_rejection_is_done_once(api: ApiUnderTest) -> None:
    """The same key and body again is a noop; with another reason it is 409."""
    _, approver, _, path = _drafted(api)
    headers = {"Idempotency-Key": "k"}
    first = approver.post(f"{path}/reject", {"reason": "no"}, headers=headers)
    again = approver.post(f"{path}/reject", {"reason": "no"}, headers=headers)
    assert [first.json()["version"], again.json()["version"]] == [3, 3]
    assert api.records(event_name=names.EVENT_JOB_REJECT)[-1].result == "noop"
    api.refused(
        names.EVENT_JOB_REJECT,
        409,
        "idempotency_conflict",
        lambda: approver.post(f"{path}/reject", {"reason": "other"}, headers=headers),
    )


def test_a_confirmation_is_recorded_with_what_was_written(api: ApiUnderTest) -> None:
    """`job.confirm` has exactly these attributes, the notes in full among them; the answer tells the same."""
    creator, approver, job, path = _drafted(api)
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"], "notes": LONGEST, "run": False}
    with api.leaves(names.EVENT_JOB_CONFIRM) as (left):
        answer = approver.post(f"{path}/confirm", body)
    (record,) = left
    assert [record[name] for name in STATED] == ["APPROVE", "success", "success", "job", job["id"]]
    assert _own(record) == {
        **_of_job(job, 3),
        names.AUDITRACE_NOTES: LONGEST,
        names.AUDITRACE_CHANGES: {
            "status": {"from": "draft_ready", "to": "confirmed"},
            "confirmed": {"from": False, "to": True},
            "plan_sha256": {"to": job["plan"]["sha256"]},
        },
    }
    assert answer.json()["rejection"] is None
    assert answer.json()["confirmation"] == {
        "by": "ben",
        "issuer": "key",
        "at": record.body["timestamp"],
        "notes": LONGEST,
        "plan_sha256": job["plan"]["sha256"],
        "record_id": record.row.record_id,
    }
    queued = creator.post(f"{path}/run").json()
    assert queued["confirmation"] == answer.json()["confirmation"]


def test_a_job_that_an_older_version_confirmed_tells_what_it_knows(store: Store, api: ApiUnderTest) -> None:
    """The actor and the plan are known; time, notes, issuer and record are null."""
    creator = api.client("anna")
    job = creator.drafted_job("greet", name="x")
    stored = store.reads.job(job["id"], None)
    assert stored is not None
    values = {name: getattr(stored, name) for name in stored.__struct_fields__}
    old = Job(**{**values, "version": 3, "status": new_job().status, "confirmed_by": "ben"})
    api.lane.submit(lambda transaction: transaction.save(store.transition(old))).result()
    assert creator.get(f"/v1/jobs/{job['id']}").json()["confirmation"] == {
        "by": "ben",
        "issuer": None,
        "at": None,
        "notes": None,
        "plan_sha256": job["plan"]["sha256"],
        "record_id": None,
    }


@pytest.mark.parametrize("reason", [None, "the disk was full"])
def test_a_cancellation_says_why(api: ApiUnderTest, reason: str | None) -> None:
    """`job.cancel` has exactly these attributes; a reason is optional, and recorded also where nothing changes."""
    creator, _, job, path = _drafted(api)
    body = None if reason is None else {"reason": reason}
    stated = {} if reason is None else {names.AUDITRACE_REASON: reason}
    with api.leaves(names.EVENT_JOB_CANCEL, names.EVENT_JOB_CANCEL) as left:
        assert creator.post(f"{path}/cancel", body).status_code == 200
        assert creator.post(f"{path}/cancel", body).status_code == 200
    changes = {"status": {"from": "draft_ready", "to": "cancelled"}}
    assert [left[0][name] for name in STATED] == ["CANCEL", "success", "success", "job", job["id"]]
    assert _own(left[0]) == {**_of_job(job, 3), **stated, names.AUDITRACE_CHANGES: changes}
    assert _own(left[1]) == {**_of_job(job, None), **stated}


@pytest.mark.parametrize("reason", [None, "the disk was full"])
def test_a_retry_says_why(api: ApiUnderTest, reason: str | None) -> None:
    """`job.retry` has exactly these attributes; a reason is optional."""
    client = api.client("anna", OPERATOR)
    job = client.finished_job("exit")
    stated = {} if reason is None else {names.AUDITRACE_REASON: reason}
    with api.leaves(names.EVENT_JOB_RETRY) as left:
        answer = client.post(f"/v1/jobs/{job['id']}/retry", {} if reason is None else {"reason": reason})
    assert [left[0][name] for name in STATED] == ["EXECUTE", "success", "success", "job", job["id"]]
    assert _own(left[0]) == {
        **_of_job(answer.json(), job["version"] + 1),
        **stated,
        names.AUDITRACE_CHANGES: {"status": {"from": "failed", "to": "queued"}, "run": {"from": 1, "to": 2}},
    }


@pytest.mark.parametrize("step", ["reject", "cancel", "retry"])
def test_a_reason_is_taken_in_full_or_not_at_all(api: ApiUnderTest, step: str) -> None:
    """One that is blank, too long in bytes, or that no record can hold is 400, names `reason`, and changes nothing."""
    client = api.client("anna")
    job = client.drafted_job("greet", name="x")
    path = f"/v1/jobs/{job['id']}"
    event = {
        "reject": names.EVENT_JOB_REJECT,
        "cancel": names.EVENT_JOB_CANCEL,
        "retry": names.EVENT_JOB_RETRY,
    }[step]
    wrong = ["", " ", UNSEEN, LONGEST + "x", "x" * 4097, "😀" * 1025, "bell\u0007", 7, ["x"]]
    for reason in wrong:
        problem, _ = api.refused(
            event, 400, "invalid_request", lambda reason=reason: client.post(f"{path}/{step}", {"reason": reason})
        )
        assert "reason" in problem["detail"]
    surrogate = b'{"reason":"\\ud83d"}'
    api.refused(event, 400, "invalid_request", lambda: client.post(f"{path}/{step}", content=surrogate))
    if step == "reject":
        problem, _ = api.refused(event, 400, "invalid_request", lambda: client.post(f"{path}/{step}", {}))
        assert "reason" in problem["detail"]
    assert client.get(path).json()["version"] == 2
    if step != "retry":
        with api.leaves(event) as left:
            assert client.post(f"{path}/{step}", {"reason": LONGEST}).status_code == 200
        assert left[0][names.AUDITRACE_REASON] == LONGEST


def test_a_draft_records_its_plan(api: ApiUnderTest) -> None:
    """`job.draft` has exactly these attributes; whoever has the record computes the hash that is confirmed from it."""
    client = api.client("anna", OPERATOR)
    job = client.new_job("sign-in", token="hunter2-secret")
    with api.leaves(names.EVENT_JOB_DRAFT) as left:
        drafted = client.post(f"/v1/jobs/{job['id']}/draft").json()
    (record,) = left
    text = record[names.AUDITRACE_JOB_PLAN]
    plan = drafted["plan"]
    assert [record[name] for name in STATED] == ["UPDATE", "success", "success", "job", job["id"]]
    assert _own(record) == {
        **_of_job(drafted, 2),
        names.AUDITRACE_JOB_PLAN: text,
        names.AUDITRACE_CHANGES: {
            "status": {"from": "created", "to": "draft_ready"},
            "plan_sha256": {"to": plan["sha256"]},
        },
    }
    assert hashlib.sha256(text.encode()).hexdigest() == plan["sha256"]
    shown = {name: value for name, value in plan.items() if name != "sha256" and value is not None}
    assert json.loads(text) == shown
    assert plan["argv"] == ["echo", job["parameters"]["token"]]
    assert job["parameters"]["token"].startswith("hmac-sha256:")
    assert "hunter2" not in record.row.body
