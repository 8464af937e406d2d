"""The API behind proxies: only they may say from where and from whom a request comes, and nobody else is believed."""

import http.client
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.api import follow
from service.api.parts import ApiSettings
from service.api.proxy_settings import ProxySettings, trusted_proxies
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import Store
from tests.support.served import Served
from tests.support.sqlite_stores import SqliteStore

PROXY, STRANGER, CLIENT = "10.0.0.1", "198.51.100.9", "203.0.113.5"
PROXIES = ProxySettings(
    trusted=trusted_proxies("10.0.0.0/24, 2001:db8::1"),
    identity_header="x-forwarded-user",
    roles_header="x-forwarded-groups",
    tenant_header="x-forwarded-tenant",
)
IDENTITY = (("X-Forwarded-User", "zoe@example.org"), ("X-Forwarded-Groups", "operator"), ("X-Forwarded-Tenant", "acme"))

Headers = Sequence[tuple[str, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One ledger for this file."""
    opened = SqliteStore(tmp_path_factory.mktemp("proxies"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def api(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiUnderTest]:
    """An API that trusts the proxies of one network, and an identity that they state."""
    settings = ApiSettings(version="0.1.0", proxies=PROXIES)
    opened = ApiUnderTest(store, tmp_path_factory.mktemp("api"), settings=settings)
    yield opened
    opened.close()


def _send(api: ApiUnderTest, headers: Headers, source: str = PROXY, path: str = "/v1/me") -> httpx.Response:
    return Client(api, None, source=source).send("GET", path, headers)


def _created(api: ApiUnderTest, headers: Headers, source: str = PROXY) -> httpx.Response:
    body = b'{"template": "greet", "parameters": {"name": "world"}}'
    return Client(api, None, source=source).send(
        "POST", "/v1/jobs", [*headers, ("Content-Type", "application/json")], body
    )


def _newest(api: ApiUnderTest) -> Any:
    return api.records()[-1]


def _key(api: ApiUnderTest) -> tuple[str, str]:
    return "Authorization", f"Bearer {api.someone('operator').token}"


def test_a_record_states_the_client_and_the_proxy_that_spoke_for_it(api: ApiUnderTest) -> None:
    """`client.address` is what the proxy says, `network.peer.address` the proxy; the span says the same."""
    assert _created(api, [_key(api), ("X-Forwarded-For", CLIENT)]).status_code == 201
    record = _newest(api)
    assert record[names.CLIENT_ADDRESS] == record[names.AUDIT_SOURCE_ID] == CLIENT
    assert record[names.AUDIT_SOURCE_TYPE] == "ipv4"
    assert record[names.NETWORK_PEER_ADDRESS] == PROXY
    spans = [span for span in api.spans.get_finished_spans() if span.name == "POST /v1/jobs"]
    attributes = spans[-1].attributes or {}
    assert (attributes[names.CLIENT_ADDRESS], attributes[names.NETWORK_PEER_ADDRESS]) == (CLIENT, PROXY)


def test_nobody_but_a_proxy_is_believed_about_an_address(api: ApiUnderTest) -> None:
    """From any other address the headers are ignored, well formed or not."""
    for value in (CLIENT, "nonsense", "for="):
        headers = [_key(api), ("X-Forwarded-For", value), ("Forwarded", value)]
        assert _created(api, headers, STRANGER).status_code == 201
        record = _newest(api)
        assert record[names.CLIENT_ADDRESS] == STRANGER
        assert names.NETWORK_PEER_ADDRESS not in record.attributes


def test_a_proxy_that_contradicts_itself_is_refused_with_a_record(api: ApiUnderTest) -> None:
    """It is 400, of the credential that sent it; without one it is 401. Both state the connection's address."""
    headers = [("X-Forwarded-For", CLIENT), ("Forwarded", "for=192.0.2.1")]
    key = _key(api)
    problem, record = api.refused(
        names.EVENT_JOB_CREATE, 400, "invalid_request", lambda: _created(api, [key, *headers])
    )
    assert "name different clients" in problem["detail"]
    assert record[names.CLIENT_ADDRESS] == PROXY
    problem_of(_send(api, headers), 401, "unauthenticated")


def test_the_identity_of_a_proxy_acts_as_an_issuer_of_its_own(api: ApiUnderTest) -> None:
    """Actor, tenant and roles are those of the headers, the issuer is `proxy`, and there is no id of a credential."""
    assert _send(api, IDENTITY).json() == {
        "actor_id": "zoe@example.org",
        "actor_type": "user",
        "issuer": "proxy",
        "credential_id": None,
        "person": None,
        "tenant_id": "acme",
        "roles": ["operator"],
        "credential_kind": "proxy",
        "expires_at": None,
    }
    assert _created(api, [*IDENTITY, ("X-Forwarded-For", CLIENT)]).status_code == 201
    record = _newest(api)
    assert (record[names.AUDIT_ACTOR_ID], record[names.AUDITRACE_ACTOR_ISSUER]) == ("zoe@example.org", "proxy")
    assert names.AUDITRACE_CREDENTIAL_ID not in record.attributes
    assert record[names.CLIENT_ADDRESS] == CLIENT


@pytest.mark.parametrize("headers", [IDENTITY, IDENTITY[:1], IDENTITY[1:2], IDENTITY[2:]])
@pytest.mark.parametrize("source", [STRANGER, "10.0.1.1", "::1"])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_stranger_who_sends_an_identity_is_refused_with_a_record(
    api: ApiUnderTest, headers: Headers, source: str, keyed: bool
) -> None:
    """Any of the headers, with a valid key beside it or not, and whatever `X-Forwarded-For` claims: 401, recorded."""
    key = [_key(api)] if keyed else []
    api.clock.advance(60)
    with api.leaves(names.EVENT_AUTH_DENIED) as left:
        answer = _send(api, [*headers, *key, ("X-Forwarded-For", PROXY)], source)
    problem = problem_of(answer, 401, "unauthenticated")
    assert problem["detail"].startswith("only a trusted proxy may send x-forwarded-")
    assert left[0][names.CLIENT_ADDRESS] == source
    assert left[0][names.AUDITRACE_REASON] == problem["detail"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([("X-Forwarded-User", "root"), *IDENTITY], "x-forwarded-user is given twice"),
        ([*IDENTITY, ("X-Forwarded-Groups", "admin")], "x-forwarded-groups is given twice"),
        ([("X-Forwarded-User", "root, zoe"), *IDENTITY[1:]], "a comma"),
        ([("X-Forwarded-User", ""), *IDENTITY[1:]], "1 to 256 characters"),
        ([("X-Forwarded-User", "x" * 257), *IDENTITY[1:]], "1 to 256 characters"),
        ([("X-Forwarded-User", "zoe\x01"), *IDENTITY[1:]], "nobody sees"),
        ([("X-Forwarded-User", "zoe  x"), *IDENTITY[1:]], "two in a row"),
        ([("X-Forwarded-User", "anonymous"), *IDENTITY[1:]], "cannot name an actor of the service"),
        ([("X-Forwarded-User", "OS:root@db"), *IDENTITY[1:]], "cannot name an actor of the service"),
        ([*IDENTITY[:2], ("X-Forwarded-Tenant", "")], "x-forwarded-tenant cannot be used"),
        ([*IDENTITY[:2], ("X-Forwarded-Tenant", "a, b")], "x-forwarded-tenant has a comma"),
        (IDENTITY[:2], "does not send x-forwarded-tenant"),
        (IDENTITY[1:], "does not send x-forwarded-user"),
        ([*IDENTITY, ("Authorization", "Bearer atk_x_y")], "two credentials"),
        ([*IDENTITY, ("Authorization", "")], "two credentials"),
    ],
)
def test_an_identity_that_is_not_clear_is_401(api: ApiUnderTest, headers: Headers, told: str) -> None:
    """Headers given twice, lists, what nobody can read, names of the service itself, and two credentials."""
    assert told in problem_of(_send(api, headers), 401, "unauthenticated")["detail"]


def test_an_identity_beyond_ascii_is_401(api: ApiUnderTest) -> None:
    """There is no agreed coding of other characters in headers."""
    headers = {name: value.encode() for name, value in [*IDENTITY[1:], ("X-Forwarded-User", "zo\xeb")]}
    transport = httpx.ASGITransport(app=api.call, client=(PROXY, 1))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://auditrace.test") as client:
            return await client.get("/v1/me", headers=headers)

    assert "not ASCII" in problem_of(api.wait(send()), 401, "unauthenticated")["detail"]


@pytest.mark.parametrize(
    ("groups", "status"),
    [("operator", 201), ("staff, operator", 201), ("staff operator", 201), ("", 403), ("Operator", 403), (None, 403)],
)
def test_only_known_roles_give_permission(api: ApiUnderTest, groups: str | None, status: int) -> None:
    """Other names of the header give none; without the header there is none."""
    given = [] if groups is None else [("X-Forwarded-Groups", groups)]
    assert _created(api, [IDENTITY[0], IDENTITY[2], *given]).status_code == status


def test_a_key_works_behind_a_proxy_that_states_nobody(api: ApiUnderTest) -> None:
    """Programs with keys and people behind a proxy use one API."""
    assert _send(api, [_key(api)]).json()["issuer"] == "key"


def test_four_eyes_tell_the_identity_of_a_proxy_from_a_key(api: ApiUnderTest) -> None:
    """The same identity may not confirm its own job; a key is another actor, also with the same name."""
    mine = [("X-Forwarded-User", "ben"), ("X-Forwarded-Groups", "operator,approver"), ("X-Forwarded-Tenant", "default")]
    body = b'{"template": "line-count", "parameters": {"path": "/etc/hosts"}}'
    proxied, json = Client(api, None, source=PROXY), ("Content-Type", "application/json")
    job = proxied.send("POST", "/v1/jobs", [*mine, json], body).json()
    assert job["created_by_issuer"] == "proxy"
    draft = proxied.send("POST", f"/v1/jobs/{job['id']}/draft", mine).json()
    wanted = {"confirmed": True, "plan_sha256": draft["plan"]["sha256"]}
    path = f"/v1/jobs/{job['id']}/confirm"
    problem_of(proxied.send("POST", path, [*mine, json], msgspec.json.encode(wanted)), 403, "forbidden")
    assert api.client("ben", "approver").post(path, wanted).status_code == 200


def test_a_follow_checks_the_identity_of_a_proxy_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credential of a follow is checked while it lasts; the one that a proxy states holds for the connection."""
    monkeypatch.setattr(follow, "CHECK_S", 0.0)
    local = msgspec.structs.replace(PROXIES, trusted=trusted_proxies("127.0.0.1"))
    headers = dict([IDENTITY[0], ("X-Forwarded-Groups", "auditor"), ("X-Forwarded-Tenant", "default")])
    store = SqliteStore(tmp_path)
    api = ApiUnderTest(store, tmp_path, settings=ApiSettings(version="0.1.0", proxies=local))
    with closing(store), closing(api), Served(api) as served:
        connection = http.client.HTTPConnection(*served.address, timeout=60)
        connection.request("GET", "/v1/audit/records?follow&event_name=job.create", headers=headers)
        answer = connection.getresponse()
        job = api.client("anna").new_job()
        lines = iter(answer.readline, b"")
        record = next(line for line in lines if line.startswith(b"data: ") and b"job.create" in line)
        assert job["audit"]["record_id"].encode() in record
        connection.close()
