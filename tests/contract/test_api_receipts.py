"""The receipt of a refusal: each kind of answer that left a record names it, and the ledger holds it with that hash."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import httpx
import pytest

from service.operations.budgets import Bounds
from service.roles import AUDITOR, EMITTER, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

NONE = "019b76da-a800-7000-8000-000000000000"
GREET = {"template": "greet", "parameters": {"name": "x"}}

Refused: TypeAlias = Callable[[ApiUnderTest], httpx.Response]


def _post(path: str = "/v1/jobs", role: str = OPERATOR, **more: Any) -> Refused:
    return lambda api: api.someone(role).post(path, **more)


def _look(path: str, role: str) -> Refused:
    return lambda api: api.someone(role).get(path)


def _on_a_job(path: str, json: Any = None, **more: Any) -> Refused:
    def send(api: ApiUnderTest) -> httpx.Response:
        client = api.someone()
        return client.post(f"/v1/jobs/{client.drafted_job()['id']}{path}", json, **more)

    return send


def _too_many_inputs(api: ApiUnderTest) -> httpx.Response:
    client = api.someone()
    return client.put(f"/v1/jobs/{client.new_job()['id']}/inputs/.hidden", b"x")


def _key_used_before(api: ApiUnderTest) -> httpx.Response:
    client, headers = api.someone(), {"Idempotency-Key": "k"}
    client.post("/v1/jobs", GREET, headers=headers)
    return client.post("/v1/jobs", {**GREET, "parameters": {"name": "y"}}, headers=headers)


def _throttled(api: ApiUnderTest) -> httpx.Response:
    client = api.someone(VIEWER)
    for _ in range(Bounds().records):
        client.post("/v1/jobs", {})
    return client.post("/v1/jobs", {})


KINDS: dict[str, tuple[int, str, Refused]] = {
    "a body that does not fit": (400, "invalid_request", _post(json={})),
    "a template that is not there": (400, "invalid_request", _post(json={**GREET, "template": "none"})),
    "a name of an input": (400, "invalid_request", _too_many_inputs),
    "a header": (400, "invalid_request", _on_a_job("/run", headers={"If-Match": "x"})),
    "a filter of the trail": (400, "invalid_request", _look("/v1/audit/records?nothing=1", AUDITOR)),
    "no credential": (401, "unauthenticated", lambda api: Client(api, None, source="a new one").get("/v1/jobs")),
    "a role": (403, "forbidden", _post(role=VIEWER, json=GREET)),
    "a look at the trail": (403, "forbidden", _look("/v1/audit/records", VIEWER)),
    "an export": (403, "forbidden", _look("/v1/audit/export", VIEWER)),
    "a job that is not there": (404, "not_found", _post(f"/v1/jobs/{NONE}/run")),
    "an id that none has": (404, "not_found", _post("/v1/jobs/none/run")),
    "a record that is not there": (404, "not_found", _look(f"/v1/audit/records/{NONE}", AUDITOR)),
    "an artifact that is not there": (404, "not_found", _look(f"/v1/jobs/{NONE}/runs/1/artifacts/a", VIEWER)),
    "a state": (409, "transition_refused", _on_a_job("/retry")),
    "a plan": (409, "plan_mismatch", _on_a_job("/confirm", {"confirmed": True, "plan_sha256": "0"})),
    "an idempotency key": (409, "idempotency_conflict", _key_used_before),
    "a version": (412, "precondition_failed", _on_a_job("/run", headers={"If-Match": '"9"'})),
    "a body that is too large": (413, "payload_too_large", _post(content=b" " * (2**20 + 1))),
    "a media type": (415, "unsupported_media_type", _post(content=b"{}", headers={"Content-Type": "text/plain"})),
    "too many refusals": (429, "throttled", _throttled),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_carries_the_receipt_of_its_record(shared_api: ApiUnderTest, kind: str) -> None:
    """`audit` of a problem has the form of a receipt, and the ledger holds that record, there and with that hash."""
    status, error_type, send = KINDS[kind]
    problem = problem_of(send(shared_api), status, error_type)
    record = shared_api.record(request_id=problem["request_id"])
    assert problem["audit"] == record.receipt
    assert record.row.record_hash == problem["audit"]["record_hash"]
    assert record[names.AUDIT_OUTCOME] == "failure"


def test_a_refusal_without_a_record_says_so(shared_api: ApiUnderTest) -> None:
    """What leaves no record has a receipt of null: a look at jobs, a path that leads nowhere, a method."""
    client = shared_api.someone(EMITTER)
    with shared_api.leaves():
        for method, path, status, error_type in (
            ("GET", "/v1/jobs", 403, "forbidden"),
            ("GET", "/v1/nothing", 404, "not_found"),
            ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ):
            assert problem_of(client.request(method, path), status, error_type)["audit"] is None


def test_a_fault_of_the_code_carries_its_receipt(shared_api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 500 whose attempt is on record names the record, and so does the span in which it was made."""

    def broken(*_: object) -> None:
        raise ArithmeticError

    client = shared_api.someone()
    job = client.new_job()
    monkeypatch.setattr("service.operations.jobs.render_plan", broken)
    with shared_api.leaves(names.EVENT_JOB_DRAFT) as left:
        problem = problem_of(client.post(f"/v1/jobs/{job['id']}/draft"), 500, "internal_error")
    (record,) = left
    assert problem["audit"] == record.receipt
    assert record.result == "error"
    (span,) = [
        span
        for span in shared_api.spans.get_finished_spans()
        if (span.attributes or {}).get(names.AUDIT_RECORD_ID) == (record.row.record_id,)
    ]
    assert f"{span.context.span_id:016x}" == record.body["span_id"]


@pytest.mark.parametrize("path", ["/v1/jobs/{id}/runs/1/artifacts/out.txt", "/v1/audit/export?job_id={id}"])
def test_an_outage_after_the_record_carries_its_receipt(api: ApiUnderTest, path: str) -> None:
    """When the look is on record and the bytes cannot be read after it, the 503 names that record."""
    client = api.someone()
    job = client.finished_job(artifacts={"out.txt": b"the bytes"})
    with ThreadPoolExecutor(1) as asking, api.held() as go_on:
        answer = asking.submit(client.get, path.format(id=job["id"]))
        poll_until(lambda: api.waiting == 1, "the record waits for the lane", 60)
        api.store.reads.close()
        go_on()
        problem = problem_of(answer.result(60), 503, "ledger_unavailable")
    receipt = problem["audit"]
    sql = "SELECT stream_id, number, hash FROM audit_records WHERE record_id = ?"
    (found,) = api.store.rows(sql, receipt["record_id"])
    assert [str(value) for value in found] == [
        receipt["stream_id"],
        str(receipt["sequence_number"]),
        receipt["record_hash"],
    ]
