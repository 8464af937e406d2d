"""What clients get wrong: a clear refusal, one record of it, and nothing changed."""

import json
from typing import Any

import pytest

from service.api.parts import ApiSettings
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH, Store

pytestmark = pytest.mark.stores(*BOTH)

CREATE = names.EVENT_JOB_CREATE


def _body(**members: Any) -> bytes:
    return json.dumps({"template": "greet", "parameters": {"name": "x"}, **members}).encode()


def _named(text: str) -> bytes:
    """A body whose parameter is this JSON text, as it stands."""
    return b'{"template":"greet","parameters":{"name":' + text.encode("utf-8", "surrogateescape") + b"}}"


# What is sent, and what the answer must say about it.
BODIES: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "JSON body"),
    "only space": (b" \n", "does not fit"),
    "no JSON": (b"template=greet", "does not fit"),
    "cut off": (b'{"template":"greet"', "does not fit"),
    "two values": (_body() + b"{}", "does not fit"),
    "an array": (b"[]", "Expected `object`, got `array`"),
    "null": (b"null", "Expected `object`, got `null`"),
    "unknown member": (_body(priority=1), "unknown field `priority`"),
    "missing member": (b"{}", "missing required field `template`"),
    "wrong type": (_body(template=7), "Expected `str`, got `int`"),
    "text for an object": (_body(parameters="name=x"), "Expected `object`, got `str`"),
    "empty template": (_body(template=""), "length >= 1"),
    "template too long": (_body(template="x" * 129), "length <= 128"),
    "too many parameters": (_body(parameters={f"p{n}": 1 for n in range(65)}), "length <= 64"),
    "a fraction": (_named("1.5"), "got `float`"),
    "an exponent": (_named("1e400"), "does not fit"),
    "not a number": (_named("NaN"), "does not fit"),
    "beyond 2^53": (_named(str(2**53)), "outside ±(2^53-1)"),
    "below -2^53": (_named(str(-(2**53))), "outside ±(2^53-1)"),
    "beyond all integers": (_named("9" * 400), "does not fit"),
    "null for a value": (_named("null"), "got `null`"),
    "lone surrogate": (_named('"\\ud83d and more text behind it"'), "does not fit"),
    "control character": (_named('"a\\u0007b"'), "control characters"),
    "NUL": (_named('"a\\u0000b"'), "control characters"),
    "line separator": (_named('"a\\u2028b"'), "control characters"),
    "bare control character": (_named('"a\x07b"'), "does not fit"),
    "control character in a name": (_body(parameters={"a\tb": "x"}), "control characters"),
    "control character in the template": (_body(template="a\nb"), "control characters"),
    "invalid UTF-8": (_named('"\udcff"'), "not valid UTF-8"),
    "UTF-16": (_body().decode().encode("utf-16"), "does not fit"),
    "nested too deeply": (b'{"template":' + b"[" * 100_000, "does not fit"),
    "unknown template": (_body(template="rm -rf"), "there is no template"),
    "unknown parameter": (_body(parameters={"name": "x", "nam": "y"}), "'nam' is not a parameter"),
    "missing parameter": (_body(parameters={}), "name is required"),
    "parameter of another type": (_named("true"), "name"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_does_not_fit_is_400(shared_api: ApiUnderTest, case: str) -> None:
    """The answer says what is wrong with the body, the record too, and no job is made."""
    body, told = BODIES[case]
    client = shared_api.someone()
    problem, record = shared_api.refused(CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs", content=body))
    assert told in problem["detail"]
    assert record.target in {("http.endpoint", "/v1/jobs"), ("template", "greet")}
    assert client.get(f"/v1/jobs?created_by={client.name}").json()["jobs"] == []


def test_a_parameter_outside_its_pattern_names_the_template_it_was_for(shared_api: ApiUnderTest) -> None:
    """A value that its template refuses is 400 with the template as target of the record."""
    client = shared_api.someone()
    body = {"template": "line-count", "parameters": {"path": "../etc/passwd"}}
    problem, record = shared_api.refused(CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs", body))
    assert "path" in problem["detail"]
    assert record.target == ("template", "line-count")


@pytest.mark.parametrize("step", ["draft", "run", "retry", "cancel"])
@pytest.mark.parametrize("body", [b"null", b"[]", b'{"force":true}', b"{", b" ", b"\xff"])
def test_a_step_without_members_takes_none(shared_api: ApiUnderTest, step: str, body: bytes) -> None:
    """They take `{}` or nothing, `/retry` and `/cancel` a reason; anything else is refused, not ignored."""
    client = shared_api.someone()
    job = client.new_job()
    events = {
        "draft": names.EVENT_JOB_DRAFT,
        "run": names.EVENT_JOB_RUN_TRIGGER,
        "retry": names.EVENT_JOB_RETRY,
        "cancel": names.EVENT_JOB_CANCEL,
    }
    path = f"/v1/jobs/{job['id']}"
    _, record = shared_api.refused(
        events[step], 400, "invalid_request", lambda: client.post(f"{path}/{step}", content=body)
    )
    assert record.target == ("job", job["id"])
    assert client.get(path).json()["version"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"confirmed": "false"},
        {"confirmed": 0},
        {"confirmed": None},
        {},
        {"confirmed": True, "plan_sha256": "x" * 129},
        {"confirmed": True, "plan_sha256": "a\u0000"},
        {"confirmed": True, "plan_sha256": "a", "notes": "x" * 4097},
        {"confirmed": True, "plan_sha256": "a", "notes": "é" * 2049},
        {"confirmed": True, "plan_sha256": "a", "notes": "bell\u0007"},
        {"confirmed": True, "plan_sha256": "a", "run": "no"},
        {"confirmed": True, "plan_sha256": "a", "force": True},
    ],
)
def test_a_confirmation_is_taken_at_its_word_or_not_at_all(shared_api: ApiUnderTest, body: dict[str, Any]) -> None:
    """`"false"` is no false: a confirmation of another type or with other members confirms nothing."""
    client = shared_api.someone()
    job = client.drafted_job()
    path = f"/v1/jobs/{job['id']}"
    shared_api.refused(names.EVENT_JOB_CONFIRM, 400, "invalid_request", lambda: client.post(f"{path}/confirm", body))
    assert client.get(path).json()["status"] == "draft_ready"


@pytest.mark.parametrize(
    "tag", ["", "1", '""', '"0"', '"01"', 'W/"1"', '"1", "2"', '"1"x', '"9999999999"', '"-1"', "**"]
)
def test_if_match_is_one_etag_or_any(shared_api: ApiUnderTest, tag: str) -> None:
    """An `If-Match` that no answer of this service can have given is 400, never read as "any"."""
    client = shared_api.someone()
    path = f"/v1/jobs/{client.new_job()['id']}/cancel"
    problem, _ = shared_api.refused(
        names.EVENT_JOB_CANCEL, 400, "invalid_request", lambda: client.post(path, headers={"If-Match": tag})
    )
    assert "If-Match" in problem["detail"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ümlaut"])
def test_an_idempotency_key_is_printable_and_short(shared_api: ApiUnderTest, key: str) -> None:
    """A key that cannot be told apart for sure is 400, and nothing is done once or twice."""
    client = shared_api.someone()
    problem, _ = shared_api.refused(
        CREATE,
        400,
        "invalid_request",
        lambda: client.post("/v1/jobs", content=_body(), headers={"Idempotency-Key": key}),
    )
    assert "Idempotency-Key" in problem["detail"]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", ""]
)
def test_a_body_of_another_media_type_is_415(shared_api: ApiUnderTest, media_type: str) -> None:
    """What does not say that it is JSON is not read as JSON."""
    client = shared_api.someone()
    headers = {"Content-Type": media_type}
    shared_api.refused(
        CREATE, 415, "unsupported_media_type", lambda: client.post("/v1/jobs", content=_body(), headers=headers)
    )


def test_json_may_say_its_charset(shared_api: ApiUnderTest) -> None:
    """Parameters of the media type, and its case, make no difference; JSON is UTF-8 anyway."""
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert shared_api.someone().post("/v1/jobs", content=_body(), headers=headers).status_code == 201


@pytest.mark.parametrize("name", ["if-match", "idempotency-key", "content-type"])
def test_a_header_that_decides_comes_once(shared_api: ApiUnderTest, name: str) -> None:
    """Doubled headers are 400: a proxy that reads the other one would think that something else was done."""
    client = shared_api.someone()
    values = {"if-match": "*", "idempotency-key": "k", "content-type": "application/json"}
    head = [("Authorization", f"Bearer {client.token}"), (name, values[name]), (name, values[name])]
    problem, _ = shared_api.refused(
        CREATE, 400, "invalid_request", lambda: client.send("POST", "/v1/jobs", head, _body())
    )
    assert name in problem["detail"]


def test_two_credentials_are_none(shared_api: ApiUnderTest) -> None:
    """A request with two `Authorization` headers is nobody's, even when both hold."""
    anna, ben = shared_api.someone(), shared_api.someone()
    head = [("Authorization", f"Bearer {client.token}") for client in (anna, ben)]
    problem = problem_of(anna.send("GET", "/v1/jobs", head), 401, "unauthenticated")
    assert "twice" in problem["detail"]


def test_a_body_over_the_limit_is_413(store: Store, tmp_path: Any) -> None:
    """Bodies up to the limit of their path pass, one byte more is refused and recorded; inputs have their own limit."""
    settings = ApiSettings(version="0.1.0", max_json_bytes=2048, max_input_bytes=4096)
    api = ApiUnderTest(store, tmp_path, settings=settings)
    client = api.client("anna")
    fitting = _body() + b" " * (2048 - len(_body()))
    assert client.post("/v1/jobs", content=fitting).status_code == 201
    api.refused(CREATE, 413, "payload_too_large", lambda: client.post("/v1/jobs", content=fitting + b" "))
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}/inputs/data.bin"
    event = names.EVENT_INPUT_WRITE
    _, record = api.refused(event, 413, "payload_too_large", lambda: client.put(path, b"x" * 4097))
    assert record.target == ("job", job["id"])
    assert client.put(path, b"x" * 4096).json()["size"] == 4096
    api.close()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=1001", "limit"),
        ("/v1/jobs?limit=ten", "limit=ten: allowed are whole numbers from 1 to 1000"),
        ("/v1/jobs?limit=1e2", "limit=1e2: "),
        ("/v1/jobs?limit=" + "9" * 99, "limit=999"),
        (
            "/v1/jobs?status=done",
            "status=done: allowed are created, draft_ready, confirmed, queued, running, succeeded",
        ),
        ("/v1/jobs?status=", "status=: allowed are created"),
        (
            "/v1/jobs?statsu=failed",
            "unknown query parameter 'statsu': did you mean status? known are created_by, cursor",
        ),
        ("/v1/jobs?status", "status=: allowed are created"),
        ("/v1/jobs/019b76da-a8b3-7a41-9c52-5d9c40d3a1f0/runs?x=1", "this path takes none"),
        ("/v1/jobs?template=", "template"),
        ("/v1/jobs?created_by=a&created_by=b", "given twice"),
        ("/v1/jobs?created_by=%07", "control characters"),
        ("/v1/jobs?cursor=", "cursor"),
        ("/v1/jobs?cursor=abc", "cursor"),
        ("/v1/jobs?cursor=%F0%9F%A6%8A", "cursor"),
        ("/v1/jobs?cursor=WzFd", "cursor"),
        ("/v1/jobs?cursor=Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LCJ4Il0", "cursor"),
        ("/v1/jobs?cursor=" + "x" * 513, "cursor"),
    ],
)
def test_a_query_that_is_not_understood_is_400(shared_api: ApiUnderTest, path: str, told: str) -> None:
    """A misspelt or doubled parameter is never read as "all"; a look at jobs leaves no record."""
    client = shared_api.someone()
    with shared_api.leaves():
        problem = problem_of(client.get(path), 400, "invalid_request")
    assert told in problem["detail"]


def test_the_values_that_the_document_lists_are_those_that_are_taken(shared_api: ApiUnderTest) -> None:
    """Each listed value of each parameter of each listing is taken, and each listing refuses any other."""
    client = shared_api.someone()
    document = client.get("/schema").json()
    listed = [
        (path, each["name"], _enum(document, each["schema"]))
        for path, item in document["paths"].items()
        for each in item.get("get", {}).get("parameters", ())
        if each["in"] == "query" and _enum(document, each["schema"])
    ]
    assert {name for _, name, _ in listed} >= {
        "status",
        "event_name",
        "action",
        "outcome",
        "result",
        "target_type",
        "format",
    }
    for path, name, values in listed:
        for value in values:
            assert client.get(f"{path}?{name}={value}").status_code == 200, (path, name, value)
        assert client.get(f"{path}?{name}=bogus").status_code == 400


def _enum(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = [*schema.get("enum", []), *schema.get("items", {}).get("enum", [])]
    for part in (*schema.get("oneOf", ()), *schema.get("allOf", ())):
        found += _enum(document, part)
    return [value for value in found if value is not None]


def test_a_change_takes_no_query(shared_api: ApiUnderTest) -> None:
    """A parameter that nothing reads, `dry_run` for one, must not look as if it was heeded: 400, recorded, no job."""
    client = shared_api.someone()
    problem, _ = shared_api.refused(
        CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs?dry_run=true", content=_body())
    )
    assert "'dry_run': this path takes none" in problem["detail"]
    assert client.get(f"/v1/jobs?created_by={client.name}").json()["jobs"] == []


@pytest.mark.parametrize("query", ["actor_id=anna", "limit=1&limit=2", "cursor=", "limit=0"])
def test_a_query_beside_one_record_or_one_job_is_checked_as_well(shared_api: ApiUnderTest, query: str) -> None:
    """The trail of a job knows pages and no filters, a single record not even pages."""
    client = shared_api.someone()
    job = client.new_job()
    for path in (f"/v1/jobs/{job['id']}/audit", f"/v1/audit/records/{job['audit']['record_id']}"):
        event = names.EVENT_AUDIT_READ
        shared_api.refused(event, 400, "invalid_request", lambda path=path: client.get(f"{path}?{query}"))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("actor=anna", "unknown query parameter"),
        ("order=asc&order=desc", "given twice"),
        ("order=up", "order=up: allowed are desc, asc"),
        ("q=a&q=b", "given twice"),
        ("q=", "q=: allowed are 1 to 200 characters"),
        ("include_trail=no", "include_trail=no: allowed are true, false"),
        ("&".join(["actor_id=a"] * 51), "actor_id is given 51 times: allowed are 50"),
        ("not_outcome=bogus", "not_outcome=bogus: allowed are failure, success, unknown"),
        ("not_job_id=x", "not_job_id=x: allowed are a UUID in small letters"),
        ("result=success&result=fine", "result=fine: allowed are denied, error"),
        ("not_tenant_id=other", "unknown query parameter 'not_tenant_id'"),
        ("actor_id=", "actor_id"),
        ("event_nam=job.create", "'event_nam': did you mean event_name?"),
        ("job_status=failed", "known are action, actor_id, actor_issuer, cursor, event_name"),
        ("outcome=bogus", "outcome=bogus: allowed are failure, success, unknown"),
        ("outcome=Success", "outcome=Success: did you mean success? allowed are failure, success, unknown"),
        ("outcome=", "outcome=: allowed are failure"),
        ("result=fine", "result=fine: allowed are denied, error, noop, rejected, success, unknown"),
        ("action=nope", "action=nope: allowed are APPROVE, CANCEL, CHECKPOINT, CREATE, DELETE, EXECUTE, EXPORT"),
        ("action=create", "action=create: allowed are APPROVE"),
        (
            "target_type=jobs",
            "did you mean job? allowed are artifact, http.endpoint, job, key, ledger, service",
        ),
        ("event_name=*.create", "event_name=*.create: "),
        ("event_name=*", "event_name=*: "),
        ("event_name=jbo.*", "event_name=jbo.*: did you mean job.*? allowed are job.create"),
        ("not_event_name=job.*.trigger", "not_event_name=job.*.trigger: did you mean job.run.trigger?"),
        ("event_name=job.created", "did you mean job.create? allowed are job.create, job.draft"),
        ("event_name=%00", "control characters"),
        ("trace_id=0AF7651916CD43DD8448EB211C80319C", "32 hexadecimal digits"),
        ("job_id=01a22c96", "a UUID in small letters"),
        ("job_id=01A22C96-3519-795B-813B-2F0F5532FB87", "a UUID in small letters"),
        ("stream_id=bogus", "a UUID in small letters"),
        ("request_id=a b", "1 to 128 letters"),
        ("span_id=b7ad6b716920333", "span_id=b7ad6b716920333: allowed are 16 hexadecimal digits"),
        ("since=yesterday", "since: 'yesterday' is not a time: write 2026-11-30 (UTC), 2026-11-30T08:00:00Z, or -2h"),
        ("since=2h", "since: '2h' is not a time"),
        ("since=", "since: '' is not a time"),
        ("since=2026-02-30T00:00:00Z", "not a time"),
        ("since=2026-01-02&until=2026-01-01", "since must be before until"),
        ("until=-1h&since=-1h", "since must be before until"),
        ("since=1969-12-31T23:59:59Z", "1970"),
        ("until=9999-12-31T23:59:59Z", "2262"),
        ("since=2026-01-01T00:00:00", "since: '2026-01-01T00:00:00' is not a time"),
        ("cursor=WyJ4Il0", "cursor"),
        ("cursor=Wy0xXQ", "cursor"),
        ("cursor=Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5XQ", "cursor"),
        ("limit=-1", "limit=-1: allowed are whole numbers from 1 to 1000"),
        ("limit=", "limit=: allowed are whole numbers from 1 to 1000"),
    ],
)
def test_a_filter_that_is_not_understood_is_400_and_recorded(shared_api: ApiUnderTest, query: str, told: str) -> None:
    """A look at the audit trail that was refused is recorded itself, as `audit.read`."""
    client = shared_api.someone()
    problem, record = shared_api.refused(
        names.EVENT_AUDIT_READ, 400, "invalid_request", lambda: client.get(f"/v1/audit/records?{query}")
    )
    assert told in problem["detail"]
    assert record.target == ("ledger", "auditrace")


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/nothing", "/nothing", "/v1/jobs/a/b/c/d", "/schema/swagger", "/%2e%2e/etc"]
)
def test_a_path_that_leads_nowhere_is_404(shared_api: ApiUnderTest, path: str) -> None:
    """An unknown path is a problem like any other, with or without a credential, and leaves no record."""
    for client in (shared_api.someone(), Client(shared_api, None)) if path == "/v1" else (Client(shared_api, None),):
        with shared_api.leaves():
            problem_of(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/v1/jobs/x", "GET, HEAD, OPTIONS"),
        ("PATCH", "/v1/audit/records/x", "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/jobs/x/confirm", "OPTIONS, POST"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("BREW", "/v1/jobs", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_a_method_that_the_path_does_not_know_is_405(
    shared_api: ApiUnderTest, method: str, path: str, allow: str
) -> None:
    """The answer lists the methods that the path does know."""
    answer = shared_api.someone().request(method, path)
    problem_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow
