"""The OpenAPI document: complete, sound in itself, and true of what the API answers."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.api import ApiUnderTest, Client
from tests.support.json_schema import faults

JSON = "application/json"
PROBLEM = "application/problem+json"
METHODS = {"get", "post", "put"}

# Every route of the API, as its users know it.
OPERATIONS = {
    ("get", "/v1/me"),
    ("get", "/v1/templates"),
    ("post", "/v1/jobs"),
    ("get", "/v1/jobs"),
    ("get", "/v1/jobs/{job_id}"),
    ("put", "/v1/jobs/{job_id}/inputs/{name}"),
    ("post", "/v1/jobs/{job_id}/draft"),
    ("post", "/v1/jobs/{job_id}/confirm"),
    ("post", "/v1/jobs/{job_id}/run"),
    ("post", "/v1/jobs/{job_id}/retry"),
    ("post", "/v1/jobs/{job_id}/cancel"),
    ("get", "/v1/jobs/{job_id}/runs"),
    ("get", "/v1/jobs/{job_id}/runs/{number}/artifacts"),
    ("get", "/v1/jobs/{job_id}/runs/{number}/artifacts/{name}"),
    ("get", "/v1/jobs/{job_id}/audit"),
    ("get", "/v1/audit/records"),
    ("get", "/v1/audit/records/{record_id}"),
    ("get", "/v1/audit/records/{record_id}/proof"),
    ("get", "/v1/audit/streams"),
    ("get", "/v1/audit/checkpoints"),
    ("get", "/v1/audit/export"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def document(shared_api: ApiUnderTest) -> dict[str, Any]:
    """The document as a client gets it."""
    answer = Client(shared_api, None).get("/schema")
    assert answer.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    described: dict[str, Any] = answer.json()
    return described


def test_both_addresses_give_the_same_document(shared_api: ApiUnderTest, document: dict[str, Any]) -> None:
    """Tools that look for `/schema/openapi.json` find what `/schema` answers."""
    assert Client(shared_api, None).get("/schema/openapi.json").json() == document


def test_every_route_is_described(document: dict[str, Any]) -> None:
    """The document holds the routes of the API, all of them and no others."""
    assert {(method, path) for method, path, _ in _operations(document)} == OPERATIONS


def test_the_document_is_sound(document: dict[str, Any]) -> None:
    """It is OpenAPI 3.1: references lead somewhere, ids are unique, path parameters are declared, answers described."""
    assert document["openapi"].startswith("3.1.")
    assert set(document) <= {"openapi", "info", "servers", "paths", "components", "tags", "security"}
    assert document["info"]["version"] == "0.1.0"
    assert document["components"]["securitySchemes"]["bearer"] | {"description": ""} == {
        "type": "http",
        "scheme": "bearer",
        "description": "",
    }
    for reference in _references(document):
        assert _resolved(document, reference) is not None, reference
    identifiers = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(identifiers) == len(set(identifiers))
    for _, path, operation in _operations(document):
        declared = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(declared) == len(set(declared))
        assert {name for place, name in declared if place == "path"} == set(re.findall(r"{(\w+)}", path))
        assert all(each["required"] for each in operation["parameters"] if each["in"] == "path")
        assert operation["description"]
        assert all(_answer(document, answer)["description"] for answer in operation["responses"].values())


def test_every_body_and_answer_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """Each JSON body, answer and problem shows an example, and the example fits its own schema."""
    seen = 0
    for content in _contents(document):
        (example,) = content["examples"].values()
        assert faults(document, content["schema"], example["value"]) == []
        seen += 1
    assert seen > 30


def test_guarded_routes_say_what_they_ask_for_and_how_they_refuse(document: dict[str, Any]) -> None:
    """A `/v1` route asks for a bearer token and describes its refusals; the others ask for nothing."""
    for method, path, operation in _operations(document):
        statuses = set(operation["responses"])
        if not path.startswith("/v1/"):
            assert operation["security"] == []
            continue
        assert operation["security"] == [{"bearer": []}]
        assert {"400", "401", "403", "429", "503"} <= statuses
        assert ("404" in statuses) == ("{" in path)
        assert ("409" in statuses) == (method != "get")
        assert ("412" in statuses) == (method != "get" and "{" in path)
        assert ("413" in statuses) == (method != "get")
        for status in statuses - {"200", "201"}:
            assert PROBLEM in _answer(document, operation["responses"][status])["content"]


def test_real_answers_fit_the_document(shared_api: ApiUnderTest, document: dict[str, Any]) -> None:
    """What the API answers to a whole story, refusals included, fits the schema of its route and status."""
    client = shared_api.someone()
    job = client.finished_job("exit_code", {"out.txt": b"hello"})
    path, confirmation = f"/v1/jobs/{job['id']}", {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    other = client.new_job()
    asked: list[tuple[str, str, Mapping[str, Any]]] = [
        ("get", "/v1/me", {}),
        ("get", "/v1/templates", {}),
        ("get", "/v1/jobs", {}),
        ("get", path, {}),
        ("get", f"{path}/runs", {}),
        ("get", f"{path}/runs/1/artifacts", {}),
        ("get", f"{path}/audit", {}),
        ("get", "/v1/audit/records", {}),
        ("get", f"/v1/audit/records/{job['audit']['record_id']}", {}),
        ("get", f"/v1/audit/records/{job['audit']['record_id']}/proof", {}),
        ("get", "/v1/audit/streams", {}),
        ("get", "/v1/audit/checkpoints", {}),
        ("get", "/health/live", {}),
        ("get", "/health/ready", {}),
        ("post", "/v1/jobs", {"json": {"template": "greet", "parameters": {"name": "x"}}}),
        ("post", "/v1/jobs", {"json": {"template": "greet", "parameters": {"name": "x"}, "b": 1}}),
        ("post", "/v1/jobs", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        ("post", f"{path}/confirm", {"json": confirmation}),
        ("post", f"{path}/retry", {}),
        ("post", f"{path}/cancel", {"headers": {"If-Match": '"1"'}}),
        ("put", f"/v1/jobs/{other['id']}/inputs/a.txt", {"content": b"x"}),
        ("post", f"/v1/jobs/{other['id']}/draft", {}),
        ("get", "/v1/jobs/none", {}),
    ]
    for method, url, more in asked:
        answer = client.request(method.upper(), url, **more)
        operation = next(
            each for kind, template, each in _operations(document) if kind == method and _matches(template, url)
        )
        content = _answer(document, operation["responses"][str(answer.status_code)])["content"]
        media_type = answer.headers["content-type"].partition(";")[0]
        assert faults(document, content[media_type]["schema"], answer.json()) == [], (method, url)


def test_the_check_itself_finds_what_does_not_fit(document: dict[str, Any]) -> None:
    """The small schema check of these tests notices a missing member, another type, an unknown member, a length."""
    schema = {"$ref": "#/components/schemas/CreateJob"}
    assert faults(document, schema, {"template": "x", "parameters": {"a": 1}}) == []
    for wrong in (
        {},
        {"template": 1},
        {"template": "x", "b": 1},
        {"template": ""},
        {"template": "x", "parameters": {"a": 1.5}},
    ):
        assert faults(document, schema, wrong) != []
    status = {"$ref": "#/components/schemas/Status"}
    assert faults(document, status, "running") == []
    assert faults(document, status, "walking") != []


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            if name == "$ref":
                yield member
            else:
                yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)


def _resolved(document: Any, reference: str) -> Any:
    for name in reference.removeprefix("#/").split("/"):
        document = document[name]
    return document


def _answer(document: Mapping[str, Any], answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return _resolved(document, answer["$ref"]) if "$ref" in answer else answer


def _contents(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _, _, operation in _operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for described in (*bodies, *(_answer(document, each) for each in operation["responses"].values())):
            for media_type, content in described["content"].items():
                if media_type in {JSON, PROBLEM}:
                    yield content


def _matches(template: str, url: str) -> bool:
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), url) is not None
