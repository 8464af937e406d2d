"""When the ledger cannot be written, or read, clients get 503 and when to come back, and nothing has changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import httpx
import pytest

from service.roles import AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH
from tests.support.outages import OUTAGES

BODY = {"template": "greet", "parameters": {"name": "x"}}
KEY = {"Idempotency-Key": "k-1"}

Unwritable: TypeAlias = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def unwritable(api: ApiUnderTest, store_kind: str, outage: str) -> Unwritable:
    """Begins the outage, once a test has prepared what it needs; gives the class of the error that clients get."""
    enter, error_type = OUTAGES[store_kind, outage]

    @contextmanager
    def begin() -> Iterator[str]:
        with enter(api.store, api.lane):
            yield error_type

    return begin


on_both = pytest.mark.stores(*BOTH)
in_each_outage = pytest.mark.parametrize(("store_kind", "outage"), OUTAGES)


@in_each_outage
def test_a_change_that_cannot_be_recorded_does_not_happen(api: ApiUnderTest, unwritable: Unwritable) -> None:
    """Every change is 503 with `Retry-After` while the ledger takes no record; afterwards nothing has changed."""
    client = api.client("anna")
    created, drafted, failed = client.new_job(), client.drafted_job(), client.finished_job("exit_code")
    confirmation = {"confirmed": True, "plan_sha256": drafted["plan"]["sha256"]}
    tried: list[Callable[[], httpx.Response]] = [
        lambda: client.post("/v1/jobs", BODY, headers=KEY),
        lambda: client.put(_path(created, "/inputs/a.txt"), b"x"),
        lambda: client.post(_path(created, "/draft")),
        lambda: client.post(_path(drafted, "/confirm"), confirmation),
        lambda: client.post(_path(drafted, "/run")),
        lambda: client.post(_path(failed, "/retry")),
        lambda: client.post(_path(created, "/cancel")),
    ]
    before = client.get("/v1/jobs").json()
    with unwritable() as error_type, api.leaves():
        for send in tried:
            _require_unavailable(send(), error_type)
    assert client.get("/v1/jobs").json() == before
    assert api.store.reads.inputs(created["id"]) == []
    assert client.post("/v1/jobs", BODY, headers=KEY).status_code == 201
    assert client.post(_path(created, "/draft")).json()["status"] == "draft_ready"


@in_each_outage
def test_a_refusal_that_cannot_be_recorded_is_503(api: ApiUnderTest, unwritable: Unwritable) -> None:
    """No refusal without its record: what would be 400, 403 or 404 is 503, so that the client asks again."""
    viewer, operator = api.client("vera", VIEWER), api.client("olga", OPERATOR)
    job = operator.new_job()
    nobody = "/v1/jobs/019b76da-a800-7000-8000-000000000000/cancel"
    with unwritable() as error_type, api.leaves():
        _require_unavailable(viewer.post("/v1/jobs", BODY), error_type)
        _require_unavailable(operator.post("/v1/jobs", {}), error_type)
        _require_unavailable(operator.post(nobody), error_type)
        _require_unavailable(operator.post(_path(job, "/run")), error_type)


@in_each_outage
def test_nothing_of_the_trail_is_handed_out_unrecorded(api: ApiUnderTest, unwritable: Unwritable) -> None:
    """A look at the trail, or at an artifact, whose record cannot be committed shows nothing."""
    client = api.client("anna")
    job = client.finished_job(artifacts={"out.txt": b"the bytes"})
    paths = (
        "/v1/audit/records",
        f"/v1/audit/records/{job['audit']['record_id']}",
        _path(job, "/audit"),
        _path(job, "/runs/1/artifacts/out.txt"),
    )
    with unwritable() as error_type, api.leaves():
        for path in paths:
            answer = client.get(path)
            _require_unavailable(answer, error_type)
            assert "the bytes" not in answer.text
    for path in paths:
        assert client.get(path).status_code == 200


@in_each_outage
def test_a_look_that_leaves_no_record_works_on(api: ApiUnderTest, unwritable: Unwritable) -> None:
    """Jobs, health and metrics can be read while nothing can be written."""
    client = api.client("anna")
    job = client.new_job()
    with unwritable():
        for path in ("/v1/jobs", _path(job), _path(job, "/runs"), "/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200


@in_each_outage
def test_a_denied_request_is_denied_all_the_same_and_counted(api: ApiUnderTest, unwritable: Unwritable) -> None:
    """Who has no credential gets 401, never 503, and is on record as soon as the ledger can be written again."""
    nobody = Client(api, None)
    with unwritable(), api.leaves():
        for _ in range(3):
            assert problem_of(nobody.get("/v1/jobs"), 401, "unauthenticated")["audit_record_id"] is None
        api.clock.advance(60)
        api.wait(api.tallies.flush_ended())
    with api.leaves(names.EVENT_AUTH_DENIED) as left:
        api.wait(api.tallies.flush_ended())
    assert left[0].changes == {"count": {"to": 3}}


@on_both
def test_a_stopping_service_takes_no_more_work(api: ApiUnderTest) -> None:
    """Once the lane is closed every change is 503 `shutting_down`; what was committed before is there."""
    client = api.client("anna")
    job = client.new_job()
    api.lane.close()
    with api.leaves():
        _require_unavailable(client.post("/v1/jobs", BODY), "shutting_down")
        _require_unavailable(client.post("/v1/jobs", {}), "shutting_down")
    assert client.get(_path(job)).status_code == 200


@on_both
def test_a_ledger_that_cannot_be_read_is_503(api: ApiUnderTest) -> None:
    """When not even credentials can be looked up the answer is 503: it says nothing about the credential."""
    client = api.client("anna", AUDITOR)
    assert client.get("/v1/audit/records").status_code == 200
    api.store.reads.close()
    _require_unavailable(client.get("/v1/audit/records"), "ledger_unavailable")
    _require_unavailable(client.post("/v1/jobs", BODY), "ledger_unavailable")
    assert api.store.rows("SELECT count(*) FROM jobs") == [(0,)]


def test_not_ready_is_503_and_names_the_part(api: ApiUnderTest) -> None:
    """Readiness names every part; one that failed makes the service not ready, a mere detail does not."""
    auditor = api.client("alma", AUDITOR)
    api.checks["relay"] = "3 records behind"
    ready = auditor.get("/health/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "checks": {"ledger": "ok", "relay": "3 records behind"}},
    )
    api.checks["ledger"] = "failed: the disk is full"
    failed = auditor.get("/health/ready")
    assert failed.status_code == 503
    assert failed.json()["status"] == "not ready"
    assert failed.json()["checks"]["ledger"] == "failed: the disk is full"
    assert auditor.get("/health/live").status_code == 200


def _require_unavailable(answer: httpx.Response, error_type: str) -> None:
    problem = problem_of(answer, 503, error_type)
    assert problem["audit_record_id"] is None
    assert int(answer.headers["retry-after"]) >= 1


def _path(job: Mapping[str, Any], path: str = "") -> str:
    return f"/v1/jobs/{job['id']}{path}"
