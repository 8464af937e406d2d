"""The OpenAPI document: complete, sound in itself, and true of what the API answers."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from service.api.problems import STATUSES
from service.jobs.model import RunStatus, Status
from service.operations.exports import ExportFormat
from service.operations.filters import FORMS
from service.roles import ROLES
from telemetry import names
from tests.support.api import ApiUnderTest, Client

JSON = "application/json"
PROBLEM = "application/problem+json"
METHODS = {"get", "post", "put", "delete"}
# Members and parameters whose values people and identity providers choose.
FREE = {"tenant_id", "actor_id", "worker_id", "target_id", "credential_id"}
ENUMS = {
    "status": [set(Status), set(RunStatus), {"live", "ready", "not ready"}],
    "action": [set(names.ACTIONS.values())],
    # A filter knows the beginnings of events too.
    "event_name": [set(names.ACTIONS), set(FORMS["event_name"].choices)],
    "outcome": [names.ATTRIBUTE_VALUES[names.AUDIT_OUTCOME]],
    "result": [names.ATTRIBUTE_VALUES[names.AUDITRACE_RESULT]],
    "target_type": [names.ATTRIBUTE_VALUES[names.AUDIT_TARGET_TYPE]],
    "actor_type": [names.ATTRIBUTE_VALUES[names.AUDIT_ACTOR_TYPE]],
    "delivery": [{"committed", "delivered", "parked"}],
    "credential_kind": [{"api_key", "jwt", "proxy"}],
    "roles": [set(ROLES)],
    "format": [set(ExportFormat)],
}

# Every route of the API, as its users know it.
OPERATIONS = {
    ("get", "/v1/me"),
    ("get", "/v1/templates"),
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("post", "/v1/keys/{key_id}/rotate"),
    ("delete", "/v1/keys/{key_id}"),
    ("post", "/v1/jobs"),
    ("get", "/v1/jobs"),
    ("get", "/v1/jobs/{job_id}"),
    ("put", "/v1/jobs/{job_id}/inputs/{name}"),
    ("post", "/v1/jobs/{job_id}/draft"),
    ("post", "/v1/jobs/{job_id}/confirm"),
    ("post", "/v1/jobs/{job_id}/reject"),
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


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    """It is valid OpenAPI 3.1 by its own schema: references, ids, path parameters, examples of its schemas."""
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == "0.1.0"
    validate(document)
    for _, path, operation in _operations(document):
        declared = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(declared) == len(set(declared))
        assert {name for place, name in declared if place == "path"} == set(re.findall(r"{(\w+)}", path))


def test_everything_has_a_description(document: dict[str, Any]) -> None:
    """Every operation, parameter, body, answer, header, type and member says what it is."""
    silent = [place for place, described in _described(document) if not described.get("description")]
    assert silent == []


def test_every_id_time_and_hash_has_a_form(document: dict[str, Any]) -> None:
    """Who reads the document knows what such a text looks like; only names that others choose are free."""
    seen = set()
    for place, name, schema in _named(document):
        is_formed = re.search(r"(^|_)id$|_at$|sha256$|hash$|^leaves$|^timestamp$|^signature$|^certificate$", name)
        forms = [each for each in _choices(schema) if each.get("type") == "string"]
        if is_formed and name not in FREE and forms:
            assert all("format" in each or "pattern" in each for each in forms), (place, name, schema)
            seen.add(name)
    assert len(seen) > 20


def test_every_enumeration_is_there(document: dict[str, Any]) -> None:
    """What has a closed set of values lists all of them, as the catalogue and the code have them."""
    seen = set()
    for place, name, schema in _named(document):
        schemas = [_looked_up(document, each) for each in _choices(schema.get("items", schema))]
        listed = [set(each.get("enum", ())) for each in schemas if "enum" in each or each.get("type") == "string"]
        if name in ENUMS and listed:
            assert all(each in ENUMS[name] for each in listed), (place, name, schemas)
            seen.add(name)
    assert seen == set(ENUMS)


def test_every_problem_of_the_service_is_listed(document: dict[str, Any]) -> None:
    """`error_type` lists what clients can meet."""
    listed = set(document["components"]["schemas"]["Problem"]["properties"]["error_type"]["enum"])
    assert listed == {kind.error_type for kind in STATUSES}


def test_bytes_are_binary(document: dict[str, Any]) -> None:
    """The body of an input and that of an artifact are bytes to every generator of clients."""
    taken = document["paths"]["/v1/jobs/{job_id}/inputs/{name}"]["put"]["requestBody"]
    given = document["paths"]["/v1/jobs/{job_id}/runs/{number}/artifacts/{name}"]["get"]["responses"]["200"]
    for body in (taken, given):
        assert body["content"] == {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def test_every_body_and_answer_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """Each JSON body, answer and problem shows an example, and the example fits its own schema."""
    seen = 0
    for content in _contents(document):
        (example,) = content["examples"].values()
        assert _faults(document, content["schema"], example["value"]) == []
        seen += 1
    assert seen > 30


def test_a_listing_of_jobs_is_shown_without_what_only_a_job_shows(document: dict[str, Any]) -> None:
    """Like a real page, the example has no receipts and no ends of standard errors; that of a change has both."""
    (page,) = document["paths"]["/v1/jobs"]["get"]["responses"]["200"]["content"][JSON]["examples"].values()
    (job,) = page["value"]["jobs"]
    assert "audit" not in job
    assert "stderr_end" not in job["runs"][0]
    (changed,) = document["paths"]["/v1/jobs"]["post"]["responses"]["201"]["content"][JSON]["examples"].values()
    assert "audit" in changed["value"]
    assert "stderr_end" in changed["value"]["runs"][0]


def test_guarded_routes_say_what_they_ask_for_and_how_they_refuse(document: dict[str, Any]) -> None:
    """A `/v1` route asks for a bearer token and describes its refusals; the others ask for nothing."""
    for method, path, operation in _operations(document):
        statuses = set(operation["responses"])
        assert "500" in statuses
        if not path.startswith("/v1/"):
            # Readiness tells more to who comes with a credential, and refuses one that does not hold.
            is_optional = path == "/health/ready"
            assert operation["security"] == ([{}, {"bearer": []}] if is_optional else [])
            assert ("401" in statuses) == is_optional
            continue
        assert operation["security"] == [{"bearer": []}]
        assert {"400", "401", "429", "503"} <= statuses
        assert ("403" in statuses) == (path != "/v1/me")
        assert ("404" in statuses) == ("{" in path)
        assert ("409" in statuses) == (method not in {"get", "delete"})
        assert ("412" in statuses) == (method != "get" and "{job_id}" in path)
        assert ("413" in statuses) == (method not in {"get", "delete"})
        assert ("415" in statuses) == (method not in {"get", "delete"})
        for status in statuses - {"200", "201"}:
            assert PROBLEM in _answer(document, operation["responses"][status])["content"]
        sent = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
        assert ("Idempotency-Key" in sent) == (method == "post")
        assert ("If-Match" in sent) == ("412" in statuses)


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
        ("get", path + "/runs/1/artifacts/none", {}),
    ]
    for method, url, more in asked:
        answer = client.request(method.upper(), url, **more)
        operation = next(
            each for kind, template, each in _operations(document) if kind == method and _matches(template, url)
        )
        described = _answer(document, operation["responses"][str(answer.status_code)])
        media_type = answer.headers["content-type"].partition(";")[0]
        assert _faults(document, described["content"][media_type]["schema"], answer.json()) == [], (method, url)
        for name, header in described["headers"].items():
            schema = _answer(document, header)["schema"]
            value = answer.headers[name]
            assert _faults(document, schema, int(value) if schema["type"] == "integer" else value) == [], name


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def _faults(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(value)]


def _described(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what has to say what it is."""
    for method, path, operation in _operations(document):
        place = f"{method} {path}"
        yield place, operation
        if "requestBody" in operation:
            yield f"{place} body", operation["requestBody"]
        for parameter in operation["parameters"]:
            yield f"{place} {parameter['name']}", parameter
        for status, answer in operation["responses"].items():
            resolved = _answer(document, answer)
            yield f"{place} {status}", resolved
            for name, header in resolved["headers"].items():
                yield f"{place} {status} {name}", _answer(document, header)
    for name, schema in document["components"]["schemas"].items():
        yield name, schema
        for member, described in schema.get("properties", {}).items():
            yield f"{name}.{member}", described


def _named(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the schemas of members and parameters with their names."""
    for method, path, operation in _operations(document):
        for parameter in operation["parameters"]:
            yield f"{method} {path}", parameter["name"], parameter["schema"]
    for kind, schema in document["components"]["schemas"].items():
        for name, described in schema.get("properties", {}).items():
            yield kind, name, described


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*schema.get("anyOf", [schema])]


def _looked_up(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return _resolved(document, schema["$ref"]) if "$ref" in schema else schema


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
