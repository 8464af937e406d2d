"""Who may do what over HTTP: every route with every role, and the record that each refusal leaves."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from service.jobs.model import Status
from service.roles import ADMIN, APPROVER, ARTIFACT_READER, AUDITOR, OPERATOR, ROLES, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

Ask = Callable[[Client, Mapping[str, Any]], httpx.Response]

READERS = {VIEWER, OPERATOR, APPROVER, AUDITOR, ADMIN}
OF_BYTES = {VIEWER, OPERATOR, APPROVER, ARTIFACT_READER, ADMIN}
JOBS = "/v1/jobs"


def _job(path: str = "") -> Ask:
    return lambda client, job: client.get(f"/v1/jobs/{job['id']}{path}")


def _act(path: str, body: Mapping[str, Any] | None = None) -> Ask:
    return lambda client, job: client.post(f"/v1/jobs/{job['id']}{path}", body)


def _confirm(client: Client, job: Mapping[str, Any]) -> httpx.Response:
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    return client.post(f"/v1/jobs/{job['id']}/confirm", body)


def _create(client: Client, _job: Mapping[str, Any]) -> httpx.Response:
    return client.post(JOBS, {"template": "greet", "parameters": {"name": "world"}})


def _input(client: Client, job: Mapping[str, Any]) -> httpx.Response:
    return client.put(f"/v1/jobs/{job['id']}/inputs/in.txt", b"bytes")


# Each route: how it is asked, in which state the job is, who may, and the event under which it stands.
ROUTES: Mapping[str, tuple[Ask, Status, set[str], str | None]] = {
    "create": (_create, Status.CREATED, {OPERATOR, ADMIN}, names.EVENT_JOB_CREATE),
    "input": (_input, Status.CREATED, {OPERATOR, ADMIN}, names.EVENT_INPUT_WRITE),
    "draft": (_act("/draft"), Status.CREATED, {OPERATOR, ADMIN}, names.EVENT_JOB_DRAFT),
    "confirm": (_confirm, Status.DRAFT_READY, {APPROVER, ADMIN}, names.EVENT_JOB_CONFIRM),
    "reject": (_act("/reject", {"reason": "wrong"}), Status.DRAFT_READY, {APPROVER, ADMIN}, names.EVENT_JOB_REJECT),
    "run": (_act("/run"), Status.DRAFT_READY, {OPERATOR, ADMIN}, names.EVENT_JOB_RUN_TRIGGER),
    "retry": (_act("/retry"), Status.FAILED, {OPERATOR, ADMIN}, names.EVENT_JOB_RETRY),
    "cancel": (_act("/cancel"), Status.CREATED, {OPERATOR, ADMIN}, names.EVENT_JOB_CANCEL),
    "me": (lambda client, _: client.get("/v1/me"), Status.CREATED, set(ROLES), None),
    "templates": (lambda client, _: client.get("/v1/templates"), Status.CREATED, READERS, None),
    "jobs": (lambda client, _: client.get(JOBS), Status.CREATED, READERS, None),
    "job": (_job(), Status.CREATED, READERS, None),
    "runs": (_job("/runs"), Status.FAILED, READERS, None),
    "artifacts": (_job("/runs/1/artifacts"), Status.FAILED, READERS, None),
    "artifact": (_job("/runs/1/artifacts/out.txt"), Status.FAILED, OF_BYTES, names.EVENT_ARTIFACT_READ),
    "trail of a job": (_job("/audit"), Status.CREATED, {AUDITOR, ADMIN}, names.EVENT_AUDIT_READ),
    "trail of a draft": (_job("/audit"), Status.DRAFT_READY, {APPROVER, AUDITOR, ADMIN}, names.EVENT_AUDIT_READ),
    "records": (
        lambda client, _: client.get("/v1/audit/records"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_READ,
    ),
    "record": (
        lambda client, job: client.get(f"/v1/audit/records/{job['audit']['record_id']}"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_READ,
    ),
    "proof": (
        lambda client, job: client.get(f"/v1/audit/records/{job['audit']['record_id']}/proof"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_VERIFY,
    ),
    "record of a draft": (
        lambda client, job: client.get(f"/v1/audit/records/{job['audit']['record_id']}"),
        Status.DRAFT_READY,
        {APPROVER, AUDITOR, ADMIN},
        names.EVENT_AUDIT_READ,
    ),
    "proof of a draft": (
        lambda client, job: client.get(f"/v1/audit/records/{job['audit']['record_id']}/proof"),
        Status.DRAFT_READY,
        {APPROVER, AUDITOR, ADMIN},
        names.EVENT_AUDIT_VERIFY,
    ),
    "streams": (
        lambda client, _: client.get("/v1/audit/streams"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_READ,
    ),
    "checkpoints": (
        lambda client, _: client.get("/v1/audit/checkpoints"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_READ,
    ),
    "export": (
        lambda client, job: client.get(f"/v1/audit/export?job_id={job['id']}"),
        Status.CREATED,
        {AUDITOR, ADMIN},
        names.EVENT_AUDIT_EXPORT,
    ),
}
OPEN = ("/", "/explorer.js", "/explorer.css", "/health/live", "/health/ready", "/metrics", "/schema")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", ROUTES)
def test_a_role_opens_its_routes_and_no_others(shared_api: ApiUnderTest, route: str, role: str) -> None:
    """What a role may do succeeds with one record; what it may not is 403, recorded as tried, and changes nothing."""
    ask, status, allowed, event = ROUTES[route]
    root = shared_api.someone()
    job = _job_in(root, status)
    client = shared_api.someone(role)
    if role in allowed:
        expected = [] if event is None else [event]
        if route == "confirm":
            expected.append(names.EVENT_JOB_RUN_TRIGGER)
        with shared_api.leaves(*expected) as left:
            answer = ask(client, job)
        assert answer.is_success, answer.text
        assert all(record.result == "success" for record in left)
        assert all(record[names.AUDIT_ACTOR_ID] == client.name for record in left)
    elif event is None:
        with shared_api.leaves():
            problem = problem_of(ask(client, job), 403, "forbidden")
        assert problem["audit_record_id"] is None
    else:
        _, record = shared_api.refused(event, 403, "forbidden", lambda: ask(client, job))
        assert record[names.AUDIT_ACTION] == names.ACTIONS[event]
        assert record.target == _target(event, job)
        assert root.get(f"/v1/jobs/{job['id']}").json()["version"] == job["version"]


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_passes_without_a_credential(shared_api: ApiUnderTest, route: str) -> None:
    """Every `/v1` route answers 401 to a request without a credential, and records `auth.denied` and nothing else."""
    ask, status, _, _ = ROUTES[route]
    job = _job_in(shared_api.someone(), status)
    with shared_api.leaves(names.EVENT_AUTH_DENIED) as left:
        problem = problem_of(ask(Client(shared_api, None, source=f"at {route}"), job), 401, "unauthenticated")
    assert left[0][names.AUDIT_ACTOR_ID] == "anonymous"
    assert problem["audit_record_id"] == left[0].row.record_id


@pytest.mark.parametrize("path", OPEN)
def test_what_machines_and_browsers_fetch_first_needs_no_credential(shared_api: ApiUnderTest, path: str) -> None:
    """Health, metrics, the API's description and the explorer page are open, hold no records and leave none."""
    shared_api.someone().new_job(name="a-secret-of-a-tenant")
    with shared_api.leaves():
        answer = Client(shared_api, None).get(path)
    assert answer.status_code == 200
    assert "a-secret-of-a-tenant" not in answer.text


def test_the_roles_of_the_table_are_all_there_are() -> None:
    """The matrix above tries every role that a credential can have."""
    assert set(ROLES) >= set().union(*(allowed for _, _, allowed, _ in ROUTES.values()))
    assert len(ROLES) == 7


def test_an_actor_may_read_the_record_of_its_own_act(shared_api: ApiUnderTest) -> None:
    """Whoever acted can follow the delivery of that record, without the role auditor; nobody else without it can."""
    operator, other = shared_api.someone(OPERATOR), shared_api.someone(OPERATOR)
    receipt = operator.new_job()["audit"]
    own = operator.get(f"/v1/audit/records/{receipt['record_id']}")
    assert own.status_code == 200
    assert own.json()["delivery"] == "committed"
    path = f"/v1/audit/records/{receipt['record_id']}"
    shared_api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda: other.get(path))


def test_a_revoked_key_ends_with_the_next_request(shared_api: ApiUnderTest) -> None:
    """A key that is revoked is 401 from then on, and says so."""
    client = shared_api.someone(OPERATOR)
    client.new_job()
    shared_api.revoke(client.name)
    problem = problem_of(client.get("/v1/jobs"), 401, "unauthenticated")
    assert "revoked" in problem["detail"]


def _job_in(root: Client, status: Status) -> dict[str, Any]:
    if status is Status.FAILED:
        return root.finished_job("exit_code", {"out.txt": b"hello"})
    return root.new_job() if status is Status.CREATED else root.drafted_job()


def _target(event: str, job: Mapping[str, Any]) -> tuple[str, str]:
    if event == names.EVENT_JOB_CREATE:
        return "template", "greet"
    if event == names.EVENT_ARTIFACT_READ:
        return "artifact", f"{job['id']}/runs/1/out.txt"
    is_look = event in {names.EVENT_AUDIT_READ, names.EVENT_AUDIT_EXPORT, names.EVENT_AUDIT_VERIFY}
    return ("ledger", "auditrace") if is_look else ("job", job["id"])
