"""What the OpenAPI document shows can be sent to the service that serves it, as it is, with what is shipped."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.support.collector import ROOT
from tests.support.named_commands import DOCUMENTS, name_of
from tests.support.service import START_S, Client, Service

JSON = "application/json"
FILE = "/etc/hosts"

_ROUTE = re.compile(r"`(GET|POST|PUT|HEAD) (/v1/[^`?]*)")
_MEMBER = re.compile(r"{\w+}")


class Served:
    """A service with the shipped templates, its document, and a client."""

    def __init__(self, service: Service) -> None:
        self.client: Client = service.client()
        self.document: Mapping[str, Any] = httpx.get(f"{service.url}/schema/openapi.json", timeout=START_S).json()

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield method, path and description of every operation."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def operation(self, name: str) -> tuple[str, str, Mapping[str, Any]]:
        """Return the operation of this id."""
        (found,) = (each for each in self.operations() if each[2]["operationId"] == name)
        return found

    def body(self, name: str) -> Any:
        """Return the example of what an operation takes."""
        return _example(self.operation(name)[2]["requestBody"])

    def answer(self, name: str) -> Any:
        """Return the example of what an operation answers with success."""
        return _example(next(iter(self.operation(name)[2]["responses"].values())))


def _example(described: Mapping[str, Any]) -> Any:
    (example,) = described["content"][JSON]["examples"].values()
    return example["value"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service of a fresh clone."""
    with Service(tmp_path_factory.mktemp("served"), {"AUDITRACE_TEMPLATES": str(ROOT / "jobs.toml")}) as service:
        yield Served(service)


def _created(client: Client) -> str:
    return str(client.create("line-count", path=FILE)["id"])


def _drafted(client: Client) -> str:
    job_id = _created(client)
    client.post(f"/v1/jobs/{job_id}/draft")
    return job_id


def _failed(client: Client) -> str:
    return str(client.until(client.run("line-count", path="/etc/no-such-file"), "failed")["id"])


def _key(client: Client) -> str:
    answer = client.http.post("/v1/keys", json={"name": "to-rotate", "roles": ["viewer"]})
    return str(answer.json()["id"])


# What there must be before, for the request to make sense.
BEFORE: Mapping[str, Callable[[Client], str] | None] = {
    "create_job": None,
    "draft_job": _created,
    "confirm_job": _drafted,
    "reject_job": _drafted,
    "run_job": _drafted,
    "cancel_job": _created,
    "retry_job": _failed,
    "create_key": None,
    "rotate_key": _key,
}


@pytest.mark.parametrize("name", BEFORE)
def test_each_body_that_is_shown_is_taken_as_it_is(served: Served, name: str) -> None:
    """Sent to a job in the state that the operation is for, the example is answered with success."""
    method, path, operation = served.operation(name)
    before = BEFORE[name]
    address = path if before is None else _MEMBER.sub(before(served.client), path)
    answer = served.client.http.request(method, address, json=served.body(name))
    assert str(answer.status_code) == next(iter(operation["responses"])), answer.text
    assert "/v1/keys" in path or answer.json()["template"] == "line-count"


def test_every_body_that_is_shown_is_sent(served: Served) -> None:
    """No operation that takes JSON is left out above."""
    bodies = {each["operationId"]: each.get("requestBody", {"content": {}}) for _, _, each in served.operations()}
    assert {name for name, body in bodies.items() if JSON in body["content"]} == set(BEFORE)


def test_the_plan_that_is_shown_is_the_one_that_is_drafted(served: Served) -> None:
    """The example of a job has the plan, and the approval its hash, that the shown request leads to."""
    plan = served.client.get(f"/v1/jobs/{_drafted(served.client)}")["plan"]
    assert served.answer("get_job")["plan"] == plan
    assert served.body("confirm_job")["plan_sha256"] == plan["sha256"]
    assert served.body("reject_job")["plan_sha256"] == plan["sha256"]
    assert served.answer("get_job")["confirmation"]["plan_sha256"] == plan["sha256"]


def test_the_template_that_is_shown_is_the_shipped_one(served: Served) -> None:
    """The example of the listing of templates is an entry of the real one."""
    (template,) = served.answer("list_templates")["templates"]
    assert template in served.client.get("/v1/templates")["templates"]


def test_readiness_is_shown_with_the_parts_that_there_are(served: Served) -> None:
    """The example names the parts of `auditrace serve`."""
    assert set(served.answer("ready")["checks"]) == set(served.client.get("/health/ready")["checks"])


def test_every_route_that_a_document_names_exists(served: Served) -> None:
    """`GET /v1/…` and its like in the documents are operations of the API."""
    known = {(method, _MEMBER.sub("{}", path)) for method, path, _ in served.operations()}
    named = {
        (name_of(document), method, _MEMBER.sub("{}", path))
        for document in DOCUMENTS
        for method, path in _ROUTE.findall(document.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert [each for each in sorted(named) if each[1:] not in known] == []
