"""`Idempotency-Key` on every POST: the same request again is answered again, and is never carried out again."""

from collections.abc import Mapping
from typing import Any

import pytest

from service.roles import APPROVER, OPERATOR
from telemetry import names
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

KEY = {"Idempotency-Key": "k-1"}
BODY = {"template": "greet", "parameters": {"name": "x"}}
DAY_S = 24 * 3600


def test_the_same_creation_again_is_the_same_job(api: ApiUnderTest) -> None:
    """The second request is 200 with the job made before and a `noop` record of its own; there is one job."""
    client = api.client("anna", OPERATOR)
    first = client.post("/v1/jobs", BODY, headers=KEY)
    with api.leaves(names.EVENT_JOB_CREATE) as left:
        second = client.post("/v1/jobs", BODY, headers=KEY)
    (record,) = left
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert "location" not in second.headers
    assert record.result == "noop"
    assert record.target == ("job", first.json()["id"])
    assert second.json()["audit"]["record_id"] == record.row.record_id
    assert len(record[names.AUDITRACE_IDEMPOTENCY_KEY_HASH]) == 64
    assert "k-1" not in record.row.body
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_the_same_key_with_another_body_is_409(api: ApiUnderTest) -> None:
    """A key stands for one request: with another body it is refused, and nothing is made."""
    client = api.client("anna", OPERATOR)
    client.post("/v1/jobs", BODY, headers=KEY)
    other = {"template": "greet", "parameters": {"name": "y"}}
    problem, _ = api.refused(
        names.EVENT_JOB_CREATE, 409, "idempotency_conflict", lambda: client.post("/v1/jobs", other, headers=KEY)
    )
    assert "new key" in problem["detail"]
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_a_key_belongs_to_its_actor_and_tenant(api: ApiUnderTest) -> None:
    """Another actor, or the same name in another tenant, is not answered with somebody else's job."""
    clients = [api.client("anna"), api.client("ben"), api.client("anna", tenant="other")]
    jobs = [client.post("/v1/jobs", BODY, headers=KEY) for client in clients]
    assert [job.status_code for job in jobs] == [201, 201, 201]
    assert len({job.json()["id"] for job in jobs}) == 3


@pytest.mark.parametrize("step", ["draft", "confirm", "run", "retry", "cancel"])
def test_every_step_is_carried_out_once(api: ApiUnderTest, step: str) -> None:
    """The same step under the same key again is 200 and `noop`, whatever became of the job since."""
    client = api.client("anna")
    path, body, event = _prepared(api, client, step)
    first = client.post(f"{path}/{step}", body, headers=KEY)
    assert first.status_code == 200, first.text
    client.post(f"{path}/cancel")
    with api.leaves(event) as left:
        again = client.post(f"{path}/{step}", body, headers=KEY)
    (record,) = left
    assert again.status_code == 200
    assert again.json()["status"] == "cancelled"
    assert again.json()["audit"]["record_id"] == record.row.record_id
    assert record.result == "noop"


@pytest.mark.parametrize("step", ["draft", "confirm", "run", "retry", "cancel"])
def test_a_key_stands_for_one_job(api: ApiUnderTest, step: str) -> None:
    """The same key on the same route for another job is 409, and that job keeps its version."""
    client = api.client("anna")
    path, body, _ = _prepared(api, client, step)
    other, other_body, event = _prepared(api, client, step)
    version = client.get(other).json()["version"]
    client.post(f"{path}/{step}", body, headers=KEY)
    api.refused(event, 409, "idempotency_conflict", lambda: client.post(f"{other}/{step}", other_body, headers=KEY))
    assert client.get(other).json()["version"] == version


def test_a_key_stands_for_one_request_even_when_that_changed_nothing(api: ApiUnderTest) -> None:
    """A request that was a no-op is remembered too: with another body its key is refused, not carried out."""
    client = api.client("anna")
    job = client.drafted_job()
    path = f"/v1/jobs/{job['id']}/confirm"
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"], "run": False}
    client.post(path, body)
    assert client.post(path, body, headers=KEY).status_code == 200
    meant = {"confirmed": False, "notes": "no"}
    api.refused(names.EVENT_JOB_REJECT, 409, "idempotency_conflict", lambda: client.post(path, meant, headers=KEY))


def test_the_same_key_on_another_route_is_another_request(api: ApiUnderTest) -> None:
    """Keys are kept apart by route."""
    client = api.client("anna")
    job = client.post("/v1/jobs", BODY, headers=KEY).json()
    assert client.post(f"/v1/jobs/{job['id']}/draft", headers=KEY).json()["status"] == "draft_ready"
    assert client.post(f"/v1/jobs/{job['id']}/cancel", headers=KEY).json()["status"] == "cancelled"


def test_a_refused_request_may_be_mended_under_the_same_key(api: ApiUnderTest) -> None:
    """What was refused was not carried out: the key is still free."""
    client = api.client("anna", OPERATOR)
    wrong = {"template": "greet", "parameters": {}}
    api.refused(names.EVENT_JOB_CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs", wrong, headers=KEY))
    assert client.post("/v1/jobs", BODY, headers=KEY).status_code == 201


def test_a_repeated_request_needs_its_role_still(api: ApiUnderTest) -> None:
    """A key opens nothing: who may not do it is refused, whatever was done under that key before."""
    approver = api.client("ben", APPROVER)
    api.refused(names.EVENT_JOB_CREATE, 403, "forbidden", lambda: approver.post("/v1/jobs", BODY, headers=KEY))


def test_a_key_is_free_again_after_a_day(api: ApiUnderTest) -> None:
    """Within 24 hours a key is remembered, after that it makes a new job."""
    client = api.client("anna", OPERATOR)
    first = client.post("/v1/jobs", BODY, headers=KEY).json()["id"]
    api.clock.advance(DAY_S - 60)
    assert client.post("/v1/jobs", BODY, headers=KEY).json()["id"] == first
    api.clock.advance(120)
    again = client.post("/v1/jobs", BODY, headers=KEY)
    assert again.status_code == 201
    assert again.json()["id"] != first


def test_a_stale_if_match_does_not_stop_a_repeated_request(api: ApiUnderTest) -> None:
    """The repeated request is answered as the first was, though the version it asked for is past by its own doing."""
    client = api.client("anna")
    job = client.new_job()
    headers = {**KEY, "If-Match": '"1"'}
    path = f"/v1/jobs/{job['id']}/draft"
    assert [client.post(path, headers=headers).status_code for _ in range(2)] == [200, 200]


def _prepared(api: ApiUnderTest, client: Client, step: str) -> tuple[str, Mapping[str, Any] | None, str]:
    """Return path and body of a step that the job there allows, and its event."""
    events = {
        "draft": names.EVENT_JOB_DRAFT,
        "confirm": names.EVENT_JOB_CONFIRM,
        "run": names.EVENT_JOB_RUN_TRIGGER,
        "retry": names.EVENT_JOB_RETRY,
        "cancel": names.EVENT_JOB_CANCEL,
    }
    if step in {"draft", "cancel"}:
        job = client.new_job()
    else:
        job = client.finished_job("exit_code") if step == "retry" else client.drafted_job()
    body = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]} if step == "confirm" else None
    return f"/v1/jobs/{job['id']}", body, events[step]
