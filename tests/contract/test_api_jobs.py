"""The life of a job over HTTP: what each step answers, which record it leaves, and what is refused."""

import hashlib
from typing import Any

import pytest

from service.roles import APPROVER, OPERATOR
from telemetry import names
from tests.support.api import TRACE_URL, ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH, SQLITE

pytestmark = pytest.mark.stores(*BOTH)

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_creating_a_job_answers_with_the_job_and_its_receipt(api: ApiUnderTest) -> None:
    """A new job is 201 with its place, its version as ETag, and a receipt that equals the committed record."""
    client = api.client("anna", OPERATOR)
    with api.leaves(names.EVENT_JOB_CREATE) as left:
        answer = client.post("/v1/jobs", {"template": "greet", "parameters": {"name": "Zoë"}})
    job, (record,) = answer.json(), left
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (job["template"], job["parameters"], job["status"], job["version"]) == (
        "greet",
        {"name": "Zoë"},
        "created",
        1,
    )
    assert (job["tenant_id"], job["created_by"], job["plan"], job["runs"]) == ("default", "anna", None, [])
    assert job["created_at"] == job["updated_at"] == record.body["timestamp"]
    assert job["links"]["trace"] == TRACE_URL.replace("{trace_id}", job["trace_id"])
    assert job["audit"] == _receipt(record)
    assert record.row.record_hash == hashlib.sha256(record.row.body.encode()).hexdigest()
    assert record.target == ("job", job["id"])
    assert record[names.AUDITRACE_TARGET_VERSION] == 1
    assert record[names.CLIENT_ADDRESS] == client.source
    assert record[names.USER_AGENT_ORIGINAL] == "tests/1"
    assert record[names.HTTP_ROUTE] == "/v1/jobs"
    assert client.get(answer.headers["location"]).json() == {key: job[key] for key in job if key != "audit"}


def test_every_step_answers_with_the_receipt_of_its_own_record(api: ApiUnderTest) -> None:
    """From creation to retry and cancellation, each change carries the receipt of the record of its own name."""
    client, approver = api.client("anna", OPERATOR), api.client("ben", APPROVER)
    job = client.new_job("line-count", path="/etc/hosts")
    path = f"/v1/jobs/{job['id']}"
    steps: list[tuple[str, Any]] = [
        (names.EVENT_INPUT_WRITE, lambda: client.put(f"{path}/inputs/in.txt", b"some")),
        (names.EVENT_JOB_DRAFT, lambda: client.post(f"{path}/draft")),
        (names.EVENT_JOB_CONFIRM, lambda: approver.post(f"{path}/confirm", _confirmation(client, path, run=False))),
        (names.EVENT_JOB_RUN_TRIGGER, lambda: client.post(f"{path}/run")),
        (names.EVENT_JOB_RETRY, lambda: _failed(api, client, job).post(f"{path}/retry")),
        (names.EVENT_JOB_CANCEL, lambda: client.post(f"{path}/cancel")),
    ]
    for event, step in steps:
        answer = step()
        record = api.records(job_id=job["id"])[-1]
        assert answer.status_code == 200, answer.text
        assert record.row.event_name == event
        assert record.result == "success"
        assert answer.json()["audit"] == _receipt(record)
        assert answer.headers["etag"] == f'"{record[names.AUDITRACE_TARGET_VERSION]}"'
        assert answer.headers["etag"] == client.get(path).headers["etag"]


def test_a_confirmation_also_triggers_the_run(api: ApiUnderTest) -> None:
    """One confirmation leaves `job.confirm`, the receipt, and then `job.run.trigger`, both by the confirmer."""
    client, approver = api.client("anna", OPERATOR), api.client("ben", APPROVER)
    job = client.drafted_job("line-count", path="/etc/hosts")
    path = f"/v1/jobs/{job['id']}"
    with api.leaves(names.EVENT_JOB_CONFIRM, names.EVENT_JOB_RUN_TRIGGER) as (left):
        answer = approver.post(f"{path}/confirm", {**_confirmation(client, path), "notes": "looks\ngood"})
    confirmed, triggered = left
    assert answer.json()["status"] == "queued"
    assert answer.json()["audit"] == _receipt(confirmed)
    assert confirmed[names.AUDIT_ACTOR_ID] == triggered[names.AUDIT_ACTOR_ID] == "ben"
    assert confirmed[names.AUDITRACE_NOTES] == "looks\ngood"
    assert triggered.changes["status"] == {"from": "confirmed", "to": "queued"}
    assert confirmed.row.sequence_number + 1 == triggered.row.sequence_number


def test_the_same_state_again_is_a_noop(api: ApiUnderTest) -> None:
    """A step that was done already is 200 and recorded as `noop`; the job keeps its version."""
    client = api.client("anna")
    job = client.drafted_job()
    path = f"/v1/jobs/{job['id']}"
    steps: list[tuple[str, str, Any]] = [
        (names.EVENT_JOB_DRAFT, "/draft", None),
        (names.EVENT_JOB_RUN_TRIGGER, "/run", {}),
        (names.EVENT_JOB_RUN_TRIGGER, "/run", None),
        (names.EVENT_JOB_RETRY, "/retry", None),
        (names.EVENT_JOB_CANCEL, "/cancel", None),
        (names.EVENT_JOB_CANCEL, "/cancel", None),
    ]
    changing = {1, 4}
    for number, (event, step, body) in enumerate(steps):
        before = client.get(path).json()
        with api.leaves(event) as left:
            answer = client.post(path + step, body)
        (record,) = left
        assert answer.status_code == 200, answer.text
        if number not in changing:
            assert record.result == "noop"
            assert names.AUDITRACE_TARGET_VERSION not in record.attributes
            assert answer.json()["version"] == before["version"]
            assert answer.json()["audit"] == _receipt(record)


@pytest.mark.parametrize(
    ("step", "event", "error_type"),
    [
        ("/run", names.EVENT_JOB_RUN_TRIGGER, "transition_refused"),
        ("/retry", names.EVENT_JOB_RETRY, "transition_refused"),
    ],
)
def test_a_step_that_the_state_does_not_allow_is_409(api: ApiUnderTest, step: str, event: str, error_type: str) -> None:
    """A step out of order is refused with a sentence that names the state; the job does not change."""
    client = api.client("anna")
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}"
    problem, record = api.refused(event, 409, error_type, lambda: client.post(path + step))
    assert "created" in problem["detail"]
    assert ("make its draft first" in problem["detail"]) == (step == "/run")
    assert record.target == ("job", job["id"])
    assert client.get(path).json()["version"] == 1


def test_what_was_cancelled_takes_no_step_any_more(api: ApiUnderTest) -> None:
    """After a cancellation inputs, draft, confirmation, run and retry are 409."""
    client = api.client("anna")
    job = client.drafted_job()
    path = f"/v1/jobs/{job['id']}"
    client.post(f"{path}/cancel")
    refused = "transition_refused"
    api.refused(names.EVENT_INPUT_WRITE, 409, refused, lambda: client.put(f"{path}/inputs/a", b"x"))
    api.refused(names.EVENT_JOB_DRAFT, 409, refused, lambda: client.post(f"{path}/draft"))
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    api.refused(names.EVENT_JOB_CONFIRM, 409, refused, lambda: client.post(f"{path}/confirm", body))
    api.refused(names.EVENT_JOB_RUN_TRIGGER, 409, refused, lambda: client.post(f"{path}/run"))
    api.refused(names.EVENT_JOB_RETRY, 409, refused, lambda: client.post(f"{path}/retry"))


def test_only_the_plan_that_was_seen_can_be_confirmed(api: ApiUnderTest) -> None:
    """Another plan hash is 409, none at all is 400, and nothing is confirmed."""
    client = api.client("anna")
    job = client.drafted_job()
    path = f"/v1/jobs/{job['id']}"
    event = names.EVENT_JOB_CONFIRM
    other = {"confirmed": True, "plan_sha256": "0" * 64}
    api.refused(event, 409, "plan_mismatch", lambda: client.post(f"{path}/confirm", other))
    api.refused(event, 400, "invalid_request", lambda: client.post(f"{path}/confirm", {"confirmed": True}))
    assert client.get(path).json()["status"] == "draft_ready"


def test_the_creator_cannot_confirm_where_four_eyes_are_asked_for(api: ApiUnderTest) -> None:
    """With `distinct_confirmer` the creator is refused even as admin, and another approver succeeds."""
    creator, other = api.client("anna"), api.client("ben", APPROVER)
    job = creator.drafted_job("line-count", path="/etc/hosts")
    path = f"/v1/jobs/{job['id']}"
    body = _confirmation(creator, path)
    problem, record = api.refused(
        names.EVENT_JOB_CONFIRM, 403, "forbidden", lambda: creator.post(f"{path}/confirm", body)
    )
    assert "another approver" in problem["detail"]
    assert record.target == ("job", job["id"])
    assert other.post(f"{path}/confirm", body).json()["status"] == "queued"


def test_a_stale_version_changes_nothing(api: ApiUnderTest) -> None:
    """Every write with an `If-Match` of an older version is 412; with the present one, or `*`, it passes."""
    client = api.client("anna")
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}"
    client.put(f"{path}/inputs/a", b"1")
    stale, present, any_version = {"If-Match": '"1"'}, {"If-Match": '"2"'}, {"If-Match": "*"}
    tried: list[tuple[str, Any]] = [
        (names.EVENT_INPUT_WRITE, lambda: client.put(f"{path}/inputs/a", b"2", headers=stale)),
        (names.EVENT_JOB_DRAFT, lambda: client.post(f"{path}/draft", headers=stale)),
        (names.EVENT_JOB_CONFIRM, lambda: client.post(f"{path}/confirm", {"confirmed": True}, headers=stale)),
        (names.EVENT_JOB_RUN_TRIGGER, lambda: client.post(f"{path}/run", headers=stale)),
        (names.EVENT_JOB_RETRY, lambda: client.post(f"{path}/retry", headers=stale)),
        (names.EVENT_JOB_CANCEL, lambda: client.post(f"{path}/cancel", headers=stale)),
    ]
    for event, send in tried:
        problem, _ = api.refused(event, 412, "precondition_failed", send)
        assert "version 2" in problem["detail"]
    assert client.put(f"{path}/inputs/a", b"2", headers=present).headers["etag"] == '"3"'
    assert client.post(f"{path}/draft", headers=any_version).status_code == 200


def test_the_trace_of_the_caller_goes_on(api: ApiUnderTest) -> None:
    """A `traceparent` becomes the trace of job and record, and `traceresponse` names the span that made them."""
    client = api.client("anna")
    answer = client.post(
        "/v1/jobs", {"template": "greet", "parameters": {"name": "x"}}, headers={"traceparent": TRACEPARENT}
    )
    record = api.records(job_id=answer.json()["id"])[0]
    assert answer.json()["trace_id"] == record.body["trace_id"] == TRACE_ID
    assert answer.headers["traceresponse"] == f"00-{TRACE_ID}-{record.body['span_id']}-01"


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize("given", ["a.B_c-9", "x" * 128])
def test_a_request_id_is_kept(api: ApiUnderTest, given: str) -> None:
    """An `X-Request-Id` of the allowed form comes back and stands in the record."""
    client = api.client("anna")
    answer = client.post(
        "/v1/jobs", {"template": "greet", "parameters": {"name": "x"}}, headers={"X-Request-Id": given}
    )
    assert answer.headers["x-request-id"] == given
    assert api.records(request_id=given)[0].target == ("job", answer.json()["id"])


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "ä", "a/b", '"', "a,b"])
def test_a_request_id_of_another_form_is_replaced(api: ApiUnderTest, given: str) -> None:
    """What cannot be a request id is replaced by one that can, never passed on."""
    answer = api.client("anna").get("/v1/jobs", headers={"X-Request-Id": given})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 36


def test_a_job_of_no_one_is_404(api: ApiUnderTest) -> None:
    """An id that no job has, or that no job can have, is 404 on every route, with a record where a change was tried."""
    client = api.client("anna")
    for job_id in ("019b76da-a800-7000-8000-000000000000", "nothing", "%00", "..%2f..", "🦊"):
        path = f"/v1/jobs/{job_id}"
        problem_of(client.get(path), 404, "not_found")
        problem_of(client.get(f"{path}/runs"), 404, "not_found")
        if "%2f" in job_id:
            continue
        _, record = api.refused(
            names.EVENT_JOB_CANCEL, 404, "not_found", lambda path=path: client.post(f"{path}/cancel")
        )
        # What no job can be called is no target either: no record carries it but as the path that was asked for.
        is_id = job_id.startswith("019b")
        assert record.target == (("job", job_id) if is_id else ("http.endpoint", "/v1/jobs/{job_id}/cancel"))
        api.refused(names.EVENT_AUDIT_READ, 404, "not_found", lambda path=path: client.get(f"{path}/audit"))


def test_sensitive_parameters_are_never_shown(api: ApiUnderTest) -> None:
    """A sensitive value appears in no answer and no record, only as a mask by which equal values are recognised."""
    client = api.client("anna")
    first, second = (client.new_job("sign-in", token="hunter2-secret") for _ in range(2))
    drafted = client.post(f"/v1/jobs/{first['id']}/draft")
    mask = first["parameters"]["token"]
    assert mask.startswith("hmac-sha256:")
    assert second["parameters"]["token"] == mask
    assert drafted.json()["plan"]["argv"] == ["echo", mask]
    assert "hunter2" not in drafted.text
    assert not any("hunter2" in record.row.body for record in api.records())


def _confirmation(client: Client, path: str, *, run: bool = True) -> dict[str, Any]:
    return {"confirmed": True, "plan_sha256": client.get(path).json()["plan"]["sha256"], "run": run}


def _failed(api: ApiUnderTest, client: Client, job: dict[str, Any]) -> Client:
    api.finish_run(job["id"], "exit_code")
    return client


def _receipt(record: Any) -> dict[str, Any]:
    row = record.row
    return {
        "record_id": row.record_id,
        "stream_id": row.stream_id,
        "sequence_number": row.sequence_number,
        "record_hash": row.record_hash,
    }
