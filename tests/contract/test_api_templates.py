"""What may be run, and who asks: the routes of templates and of the caller itself."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from service.roles import AUDITOR, EMITTER, ROLES, VIEWER
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH


def test_templates_say_what_a_job_asks_for(shared_api: ApiUnderTest) -> None:
    """Each template comes with its rules, limits and the JSON Schema of its parameters, by name."""
    templates = shared_api.someone(VIEWER).get("/v1/templates").json()["templates"]
    assert [each["name"] for each in templates] == ["greet", "line-count", "sign-in"]
    schema = templates[1].pop("parameters")
    assert templates[1] == {
        "name": "line-count",
        "description": "Count the lines of a file",
        "requires_confirmation": True,
        "distinct_confirmer": True,
        "requires_person": False,
        "timeout_ms": 300_000,
        "max_attempts": 3,
        "limits": {
            "memory_bytes": 2**29,
            "cpu_seconds": 300,
            "output_bytes": 2**23,
            "processes": 512,
            "open_files": 1024,
            "folder_bytes": 2**30,
            "folder_files": 50_000,
        },
    }
    path = schema["properties"].pop("path")
    assert schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
        "required": ["path"],
        "additionalProperties": False,
    }
    assert (path["type"], path["maxLength"]) == ("string", 1024)
    assert path["pattern"] == "^(?:^/[A-Za-z0-9._/\\-]{1,200}$)$"


def test_a_sensitive_parameter_is_marked(shared_api: ApiUnderTest) -> None:
    """A form knows by `writeOnly` that a value is never shown again."""
    templates = shared_api.someone(VIEWER).get("/v1/templates").json()["templates"]
    marked = {
        (template["name"], name)
        for template in templates
        for name, schema in template["parameters"]["properties"].items()
        if schema.get("writeOnly")
    }
    assert marked == {("sign-in", "token")}


@pytest.mark.parametrize(
    ("template", "parameters"),
    [
        ("greet", {"name": "world"}),
        ("greet", {"name": ""}),
        ("greet", {"name": "-rf"}),
        ("greet", {"name": "a\nb"}),
        ("greet", {"name": "a\n"}),
        ("greet", {"name": "\u202etxt"}),
        ("greet", {"name": "hmac-sha256:" + "0" * 64}),
        ("greet", {"name": "x" * 1024}),
        ("greet", {"name": "x" * 1025}),
        ("greet", {"name": "😀" * 1024}),
        ("greet", {"name": 1}),
        ("greet", {"name": True}),
        ("greet", {"name": None}),
        ("greet", {}),
        ("greet", {"name": "x", "more": "y"}),
        ("line-count", {"path": "/etc/hosts"}),
        ("line-count", {"path": "etc/hosts"}),
        ("line-count", {"path": "/etc/hosts\n"}),
        ("line-count", {"path": "/" + "a" * 201}),
    ],
)
def test_the_schema_says_what_a_job_is_created_with(
    shared_api: ApiUnderTest, template: str, parameters: dict[str, Any]
) -> None:
    """What the schema takes is 201, and what it does not is 400."""
    client = shared_api.someone()
    templates = client.get("/v1/templates").json()["templates"]
    (schema,) = [each["parameters"] for each in templates if each["name"] == template]
    answer = client.post("/v1/jobs", {"template": template, "parameters": parameters})
    expected = 201 if Draft202012Validator(schema).is_valid(parameters) else 400
    assert answer.status_code == expected, answer.text


@pytest.mark.stores(*BOTH)
@pytest.mark.parametrize("role", ROLES)
def test_everybody_may_ask_who_it_is(shared_api: ApiUnderTest, role: str) -> None:
    """Any credential that holds learns its actor, tenant and roles; that leaves no record."""
    client = shared_api.someone(role, tenant="ours")
    with shared_api.leaves():
        answer = client.get("/v1/me")
    assert answer.json() == {
        "actor_id": client.name,
        "actor_type": "service" if role == EMITTER else "user",
        "issuer": "key",
        "credential_id": client.key_id,
        "person": None,
        "tenant_id": "ours",
        "roles": [role],
        "credential_kind": "api_key",
        "expires_at": None,
    }


def test_roles_come_in_one_order(shared_api: ApiUnderTest) -> None:
    """Equal credentials get equal answers."""
    assert shared_api.someone(AUDITOR, VIEWER).get("/v1/me").json()["roles"] == [VIEWER, AUDITOR]


def test_nobody_is_nobody(shared_api: ApiUnderTest) -> None:
    """Without a credential, `/v1/me` is 401 as every other route."""
    problem_of(Client(shared_api, None, source="here").get("/v1/me"), 401, "unauthenticated")
