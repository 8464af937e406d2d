"""What callers without a credential learn of where the service runs: nothing of hosts, ports, paths and causes."""

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest

from service.api.auth import Credential
from service.errors import DiskLowError, LedgerUnavailableError
from service.roles import ADMIN, AUDITOR, OPERATOR, VIEWER
from service.store.postgres.connection import translate
from service.store.watermark import DiskWatermark, WatermarkedLedger
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import Store
from tests.support.poll_until import poll_until
from tests.support.service import Service

SINK: Final = "http://collector.inside.example:4399/v1/logs"
CAUSE: Final = 'connection to server at "db.inside.example" (10.0.0.7), port 5432 failed'


class _AwayAuthenticator:
    """Cannot reach where the keys are."""

    async def authenticate(self, token: str) -> Credential:
        raise LedgerUnavailableError("the ledger cannot be used", cause=CAUSE)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a sink that is away, and a resource that says where it runs."""
    settings = {
        "AUDITRACE_AUDIT_ENDPOINT": SINK,
        "AUDITRACE_SHUTDOWN_GRACE": "1s",
        "AUDITRACE_TRACE_URL_TEMPLATE": "http://traces.inside.example/{trace_id}",
        "OTEL_RESOURCE_ATTRIBUTES": f"host.name={socket.gethostname()}.inside.example",
    }
    with Service(tmp_path_factory.mktemp("inside"), settings) as running:
        running.client().create("greet", name="x")
        poll_until(lambda: running.client().get("/health/ready")["checks"]["delivery"] != "ok", "the sink to be missed")
        yield running


PATHS: Final = {
    "/": 200,
    "/explorer.js": 200,
    "/explorer.css": 200,
    "/health/live": 200,
    "/health/ready": 200,
    "/metrics": 200,
    "/schema": 200,
    "/schema/openapi.json": 200,
    "/v1/jobs": 401,
    "/v1/audit/records?outcome=bogus": 401,
    "/nothing/here": 404,
    "//v1/jobs": 404,
}


@pytest.mark.parametrize("path", PATHS)
def test_no_open_answer_says_where_the_service_runs(service: Service, path: str) -> None:
    """Pages, documents, metrics, health and refusals name no host, port, path, address or line of code."""
    answer = httpx.get(f"{service.url}{path}", timeout=60)
    assert answer.status_code == PATHS[path]
    told = f"{answer.headers} {answer.text}"
    port = service.url.rpartition(":")[2]
    for inside in ("inside.example", str(service.folder), service.folder.name, str(Path.home()), sys.prefix):
        assert inside not in told
    for inside in (
        r"\b127\.0\.0\.1\b",
        rf":({port}|4399)\b",
        r"sqlite:///",
        r"postgres(ql)?://\w",
        r"Traceback",
        r"\.py\b",
    ):
        assert re.search(inside, told) is None, inside


def test_an_operator_finds_the_same_in_log_and_readiness(service: Service) -> None:
    """What strangers do not learn is not lost: the log has it, and readiness tells it to who may know."""
    assert SINK in service.client().get("/health/ready")["checks"]["delivery"]
    assert SINK in service.log.read_text(errors="replace")
    assert httpx.get(f"{service.url}/health/ready", timeout=60).json()["checks"]["delivery"] == "degraded"


def test_readiness_says_a_word_to_anybody_and_all_to_who_may_know(shared_api: ApiUnderTest) -> None:
    """`ok`, `degraded` or `failed` without a credential and for other roles; auditor and admin get the text."""
    kept, shared_api.checks = shared_api.checks, {"ledger": f"failed: {CAUSE}", "delivery": f"held, {SINK}", "w": "ok"}
    for client in (Client(shared_api, None), shared_api.someone(VIEWER), shared_api.someone(OPERATOR)):
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"ledger": "failed", "delivery": "degraded", "w": "ok"}
    for role in (AUDITOR, ADMIN):
        answer = shared_api.someone(role).get("/health/ready")
        assert (answer.status_code, answer.json()["checks"]) == (503, shared_api.checks)
    shared_api.checks = kept


def test_readiness_is_no_place_to_guess_keys(shared_api: ApiUnderTest) -> None:
    """A credential that does not hold is 401 there too, and on record like everywhere."""
    with shared_api.leaves(names.EVENT_AUTH_DENIED):
        problem_of(Client(shared_api, "atk_x_y").get("/health/ready"), 401, "unauthenticated")


def test_readiness_answers_when_no_key_can_be_looked_up(store: Store, tmp_path: Path) -> None:
    """With the keys out of reach the caller is a stranger like others, and gets an answer."""
    api = ApiUnderTest(store, tmp_path, authenticate=lambda _: _AwayAuthenticator())
    client = api.client("alma", AUDITOR)
    api.checks["delivery"] = f"held, {SINK}"
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["checks"]) == (200, {"ledger": "ok", "delivery": "degraded"})
    api.close()


def test_a_refusal_for_now_keeps_its_cause_to_itself(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """503 says that the ledger cannot be used; where the database is and what it said stands in the log alone."""
    api = ApiUnderTest(store, tmp_path, authenticate=lambda _: _AwayAuthenticator())
    client = api.client("alma", AUDITOR)
    problem = problem_of(client.get("/v1/jobs"), 503, "ledger_unavailable")
    assert problem["detail"] == "the ledger cannot be used"
    assert CAUSE in caplog.text
    assert problem["request_id"] in caplog.text
    api.close()


def test_what_a_database_says_of_itself_is_a_cause() -> None:
    """The driver names host and port: they are in what operators read, and not in what clients are told."""
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect("postgresql://127.0.0.1:1/nothing")
    error = translate(refused.value)
    assert isinstance(error, LedgerUnavailableError)
    assert error.summary == "the ledger cannot be used"
    assert "127.0.0.1" in error.detail
    assert str(error) == error.detail


@pytest.mark.stores("sqlite")
def test_a_full_disk_is_told_without_its_folder(store: Store, tmp_path: Path) -> None:
    """The client learns that there is no room; the folder and the setting are for the operator."""
    full = WatermarkedLedger(store.lane(), DiskWatermark(tmp_path, 2**62, lambda: 0.0))
    with pytest.raises(DiskLowError) as refused:
        full.submit(lambda _: None).result()
    assert str(tmp_path) in refused.value.detail
    assert str(tmp_path) not in refused.value.summary
