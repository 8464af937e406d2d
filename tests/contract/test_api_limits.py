"""Who may cause how much: what is over a limit is refused, counted and on record, and takes nothing from others."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.auth import Authenticator, Credential
from service.api.tenant_limits import HEADROOM
from service.jobs.model import TenantId
from service.operations.rates import BURST_S, Rate, RequestLimits
from service.roles import ADMIN, AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, Record, problem_of
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.tokens import TokenIssuer

pytestmark = pytest.mark.stores(*BOTH)

THROTTLED = names.EVENT_REQUEST_THROTTLED
HELD = 20
"""What each bucket of these tests holds."""
SLOW = Rate(HELD // BURST_S, 1)
A_TOKEN = "atk_0123456789abcdef_" + "x" * 43

Opened = Callable[[RequestLimits], ApiUnderTest]


class Looked:
    """An authenticator that counts how often it is asked: what a flood costs in look-ups and checks of signatures."""

    def __init__(self, behind: Authenticator) -> None:
        self.count = 0
        self._behind = behind

    async def authenticate(self, token: str) -> Credential:
        """Count, and ask the real one."""
        self.count += 1
        return await self._behind.authenticate(token)


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Iterator[Opened]:
    """Opens the API with limits."""
    apis: list[ApiUnderTest] = []

    def open_with(limits: RequestLimits) -> ApiUnderTest:
        apis.append(ApiUnderTest(store, tmp_path, limits=limits))
        return apis[-1]

    yield open_with
    for api in apis:
        api.close()


def _over(answer: httpx.Response, told: str, status: int = 429) -> dict[str, Any]:
    """Return the problem of a request that is over a limit."""
    problem = problem_of(answer, status, "throttled" if status == 429 else "tenant_full")
    assert told in problem["detail"]
    return problem


def _end_minute(api: ApiUnderTest) -> None:
    api.clock.advance(60)
    api.wait(api.tallies.flush_ended())


def _counts(records: Sequence[Record]) -> dict[tuple[str, str], int]:
    """Return how many requests were over which limit, by actor."""
    found: dict[tuple[str, str], int] = {}
    for record in records:
        key = record[names.AUDIT_ACTOR_ID], record.changes["limit"]["to"]
        found[key] = found.get(key, 0) + record.changes["count"]["to"]
    return found


def test_too_many_requests_of_a_credential_are_429(opened: Opened) -> None:
    """Beyond its rate a credential is told when to come again, and passes then; others pass all the time."""
    api = opened(RequestLimits(credential_requests=SLOW))
    fast, other = api.client("fay", VIEWER), api.client("olga", VIEWER)
    assert [fast.get("/v1/jobs").status_code for _ in range(HELD)] == [200] * HELD
    with api.leaves(THROTTLED) as left:
        answer = fast.get("/v1/jobs")
        problem = _over(answer, "your requests come too fast: wait 1 s")
        for _ in range(4):
            assert _over(fast.get("/v1/jobs"), "too fast")["audit"] is None
    assert answer.headers["retry-after"] == "1"
    (record,) = left
    assert problem["audit"] == record.receipt
    assert record.changes == {"limit": {"to": "credential_requests"}, "count": {"to": 1}}
    assert (record.result, record.target) == ("rejected", ("http.endpoint", "/v1/jobs"))
    assert record[names.AUDIT_ACTOR_ID] == "fay"
    assert record[names.AUDITRACE_REASON] == problem["detail"]
    assert api.over_limit == {"credential_requests": 5}
    assert other.get("/v1/jobs").status_code == 200
    api.clock.advance(1)
    assert fast.get("/v1/jobs").status_code == 200
    _end_minute(api)
    assert _counts(api.records(event_name=THROTTLED)) == {("fay", "credential_requests"): 5}


def test_an_actor_has_one_rate_however_many_tokens_it_has(store: Store, tmp_path: Path) -> None:
    """Another token of the same person brings no more requests; the same id of another issuer is another actor."""
    issuer = TokenIssuer(tmp_path, store.clock)
    api = ApiUnderTest(store, tmp_path, limits=RequestLimits(credential_requests=SLOW), authenticate=issuer.beside)
    statuses = [
        Client(api, issuer.token("fay", VIEWER, jti=str(number))).get("/v1/jobs").status_code
        for number in range(HELD + 5)
    ]
    assert statuses == [200] * HELD + [429] * 5
    assert api.client("fay", VIEWER).get("/v1/jobs").status_code == 200
    api.close()


def test_what_is_over_a_limit_hides_no_refusal(opened: Opened) -> None:
    """Requests over a limit take no record from the refusals of the same actor, in any number."""
    api = opened(RequestLimits(credential_requests=SLOW))
    client = api.client("vera", VIEWER)
    for _ in range(HELD):
        client.get("/v1/jobs")
    for _ in range(100):
        _over(client.post("/v1/jobs", {"template": "greet"}), "too fast")
    for _ in range(HELD - 1):
        api.clock.advance(0.5)
        api.refused(names.EVENT_JOB_CREATE, 403, "forbidden", lambda: client.post("/v1/jobs", {"template": "greet"}))


def test_received_bytes_are_limited(opened: Opened) -> None:
    """Who has sent too much is refused until it is paid off; the body that went beyond is taken whole."""
    api = opened(RequestLimits(credential_bytes=Rate(60_000, 60)))
    client, other = api.client("anna", OPERATOR), api.client("olga", VIEWER)
    job = client.new_job()
    assert client.put(f"/v1/jobs/{job['id']}/inputs/in.txt", b"x" * 30_000).status_code == 200
    answer = client.get("/v1/jobs")
    wait_s = int(answer.headers["retry-after"])
    _over(answer, "too many bytes")
    assert 20 <= wait_s <= 25
    assert other.get("/v1/jobs").status_code == 200
    api.clock.advance(wait_s - 1.5)
    _over(client.get("/v1/jobs"), "too many bytes")
    api.clock.advance(2)
    assert client.get("/v1/jobs").status_code == 200


def test_sent_bytes_are_limited(opened: Opened) -> None:
    """Who got too much is refused in the same way."""
    api = opened(RequestLimits(credential_bytes=Rate(60_000, 60)))
    client = api.client("anna")
    job = client.finished_job(artifacts={"out.bin": b"x" * 40_000})
    assert client.get(f"/v1/jobs/{job['id']}/runs/1/artifacts/out.bin").status_code == 200
    _over(client.get("/v1/jobs"), "too many bytes")


def test_an_answer_in_pieces_waits_and_is_whole(opened: Opened) -> None:
    """An export beyond the bytes of its credential is not cut: its pieces come as fast as the rate allows."""
    api = opened(RequestLimits(credential_bytes=Rate(60_000, 60)))
    client = api.client("anna")
    job = client.new_job(name="x" * 1000)
    for _ in range(10):
        api.clock.advance(5)
        assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    asked = asyncio.run_coroutine_threadsafe(client.ask("GET", "/v1/audit/export?format=jsonl"), api.loop)
    seconds = 0
    while not wait([asked], 0.05).done:
        api.clock.advance(5)
        seconds += 5
    assert asked.result().status_code == 200
    size, events = len(asked.result().content), [json.loads(line)["event_name"] for line in asked.result().iter_lines()]
    assert events.count(names.EVENT_JOB_CANCEL) == 10
    assert seconds >= (size - HELD * 1000) // 1000


def test_a_source_without_a_credential_is_limited(opened: Opened) -> None:
    """A source that tries too many credentials is refused before they are looked up; other sources are not."""
    api = opened(RequestLimits(source_requests=SLOW))
    guessing, other = Client(api, A_TOKEN), Client(api, None, source="192.0.2.8")
    for _ in range(HELD):
        problem_of(guessing.get("/v1/jobs"), 401, "unauthenticated")
    with api.leaves(THROTTLED) as left:
        answer = guessing.get("/v1/jobs")
        _over(answer, "from your address: wait 1 s")
        _over(Client(api, None).get("/v1/jobs"), "from your address")
    assert answer.headers["retry-after"] == "1"
    (record,) = left
    assert record[names.AUDIT_ACTOR_ID] == "anonymous"
    assert record[names.CLIENT_ADDRESS] == guessing.source
    assert record.changes == {"limit": {"to": "source_requests"}, "count": {"to": 1}}
    problem_of(other.get("/v1/jobs"), 401, "unauthenticated")
    api.clock.advance(1)
    problem_of(guessing.get("/v1/jobs"), 401, "unauthenticated")
    _end_minute(api)
    assert _counts(api.records(event_name=THROTTLED)) == {("anonymous", "source_requests"): 2}


def test_a_network_of_ipv6_is_one_source(opened: Opened) -> None:
    """Whoever has a whole network of 64 bits gets no more than whoever has one address."""
    api = opened(RequestLimits(source_requests=SLOW))
    statuses = [Client(api, None, source=f"2001:db8::{n:x}").get("/v1/jobs").status_code for n in range(HELD + 3)]
    assert statuses == [401] * HELD + [429] * 3
    assert Client(api, None, source="2001:db8:0:1::1").get("/v1/jobs").status_code == 401


def test_a_flood_from_an_address_locks_out_no_valid_key(opened: Opened) -> None:
    """From the same address valid API keys pass, whether or not they were used before; others do not."""
    api = opened(RequestLimits(source_requests=SLOW, unauthenticated_requests=SLOW))
    fresh, revoked = api.client("fred", VIEWER), api.client("rene", VIEWER)
    ended = api.client_until("ed", VIEWER, expires_ns=api.clock() + 1_000_000_000)
    api.revoke("rene")
    api.clock.advance(2)
    for _ in range(HELD * 2):
        Client(api, A_TOKEN).get("/v1/jobs")
    _over(Client(api, A_TOKEN).get("/v1/jobs"), "from your address")
    assert fresh.get("/v1/jobs").status_code == 200
    assert [fresh.get("/v1/jobs").status_code for _ in range(HELD)] == [200] * HELD
    assert fresh.token is not None
    wrong = Client(api, fresh.token[:-1] + ("A" if fresh.token[-1] != "A" else "B"))
    for each in (revoked, ended, wrong, Client(api, "atk_"), Client(api, "atk__"), Client(api, "atk_x")):
        _over(each.get("/v1/jobs"), "from your address")
    api.clock.advance(5)
    later = api.client("lara", VIEWER)
    for _ in range(HELD):
        Client(api, A_TOKEN).get("/v1/jobs")
    assert later.get("/v1/jobs").status_code == 200


def test_a_valid_credential_costs_its_address_nothing(opened: Opened) -> None:
    """Valid requests take nothing from what others without a credential may send from there, and need none of it."""
    api = opened(RequestLimits(source_requests=SLOW, unauthenticated_requests=SLOW))
    for number in range(3 * HELD):
        assert api.client(f"user-{number}", VIEWER).get("/v1/jobs").status_code == 200
    assert [Client(api, A_TOKEN).get("/v1/jobs").status_code for _ in range(HELD)] == [401] * HELD


@pytest.mark.stores(SQLITE)
def test_a_token_in_use_passes_and_loses_that_when_it_ends(store: Store, tmp_path: Path) -> None:
    """A token that was accepted passes a flood from its address; once it has expired it is one of the flood."""
    issuer = TokenIssuer(tmp_path, store.clock)
    looked: list[Looked] = []

    def authenticate(keys: Authenticator) -> Authenticator:
        looked.append(Looked(issuer.beside(keys)))
        return looked[0]

    api = ApiUnderTest(store, tmp_path, limits=RequestLimits(source_requests=SLOW), authenticate=authenticate)
    used, unused = (Client(api, issuer.token(name, VIEWER)) for name in ("uma", "nina"))
    assert used.get("/v1/jobs").status_code == 200
    forged = Client(api, issuer.token("mallory", VIEWER)[:-4] + "AAAA")
    for _ in range(HELD * 3):
        forged.get("/v1/jobs")
    assert looked[0].count == 1 + HELD
    assert used.get("/v1/jobs").status_code == 200
    _over(unused.get("/v1/jobs"), "from your address")
    api.clock.advance(1)
    assert unused.get("/v1/jobs").status_code == 200
    api.clock.advance(400)
    for _ in range(HELD):
        forged.get("/v1/jobs")
    problem_of(used.get("/v1/jobs"), 401, "unauthenticated")
    _over(used.get("/v1/jobs"), "from your address")
    api.close()


def test_jobs_of_a_tenant_are_limited(opened: Opened) -> None:
    """A tenant that creates too many jobs is told to wait, whichever actor asks; another tenant is not."""
    api = opened(RequestLimits(tenant_jobs=SLOW))
    first, second = api.client("anna", OPERATOR, tenant="acme"), api.client("ben", OPERATOR, tenant="acme")
    other = api.client("olga", OPERATOR, tenant="other")
    jobs = [(first if number % 2 else second).new_job() for number in range(HELD)]
    for client in (first, second):
        with api.leaves(THROTTLED):
            _over(client.post("/v1/jobs", {"template": "greet"}), "your tenant creates too many jobs")
    other.new_job()
    assert first.post(f"/v1/jobs/{jobs[0]['id']}/cancel").status_code == 200
    api.clock.advance(1)
    first.new_job()


def test_records_of_a_tenant_are_limited(opened: Opened) -> None:
    """A tenant that makes too many records changes nothing more for a while; its runs end, its trail can be read."""
    api = opened(RequestLimits(tenant_records=SLOW))
    client, auditor = api.client("anna", OPERATOR, tenant="acme"), api.client("alma", AUDITOR, tenant="acme")
    other = api.client("olga", OPERATOR, tenant="other")
    api.clock.advance(BURST_S)
    job = client.drafted_job()
    assert client.post(f"/v1/jobs/{job['id']}/run").status_code == 200
    while (answer := client.post("/v1/jobs", {"template": "greet", "parameters": {"name": "x"}})).status_code == 201:
        pass
    _over(answer, "your tenant makes too many records")
    assert len(api.records(tenant_id="acme", event_name=names.EVENT_JOB_CREATE)) <= HELD
    _over(client.post(f"/v1/jobs/{job['id']}/run"), "too many records")
    assert api.finish_run(job["id"]).status == "succeeded"
    assert auditor.get("/v1/audit/records").status_code == 200
    assert client.get("/v1/jobs").status_code == 200
    api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda: client.get("/v1/audit/records"))
    other.new_job()
    api.clock.advance(BURST_S)
    client.new_job()


def test_denied_requests_cost_no_tenant_a_record(opened: Opened) -> None:
    """Records of requests without a credential do not count for the tenant `default`."""
    api = opened(RequestLimits(tenant_records=SLOW))
    client = api.client("anna", OPERATOR)
    api.clock.advance(BURST_S)
    for number in range(3 * HELD):
        Client(api, None, source=f"192.0.2.{number}").get("/v1/jobs")
    client.new_job()


def test_a_full_tenant_stores_nothing_more(opened: Opened, store: Store) -> None:
    """A full tenant gets 413 before anything is stored, and is counted; others pass, as do its reads and endings."""
    most = 200_000
    api = opened(RequestLimits(tenant_bytes=most))
    client, auditor, viewer = (
        api.client(name, role, tenant="acme") for name, role in (("anna", ADMIN), ("alma", AUDITOR), ("vera", VIEWER))
    )
    other = api.client("olga", OPERATOR, tenant="other")
    job, running, waiting = client.new_job(), client.drafted_job(), client.drafted_job()
    assert client.post(f"/v1/jobs/{running['id']}/run").status_code == 200
    with api.leaves(THROTTLED) as left:
        answer = client.put(f"/v1/jobs/{job['id']}/inputs/big", b"x" * most)
    problem = _over(answer, "AUDITRACE_TENANT_BYTES", 413)
    assert left[0].changes == {"limit": {"to": "tenant_bytes"}, "count": {"to": 1}}
    assert problem["audit"] == left[0].receipt
    room = most - store.reads.stored_bytes(TenantId("acme"))
    assert client.put(f"/v1/jobs/{job['id']}/inputs/small", b"x" * (room - 10_000)).status_code == 200
    finished = api.finish_run(running["id"], artifacts={"out.bin": b"x" * 10_000})
    assert finished.status == "succeeded"
    api.clock.advance(1)
    assert store.reads.stored_bytes(finished.tenant_id) > most
    for send in (
        lambda: client.post("/v1/jobs", {"template": "greet"}),
        lambda: client.put(f"/v1/jobs/{job['id']}/inputs/small", b""),
        lambda: client.post(f"/v1/jobs/{waiting['id']}/run"),
    ):
        answer = send()
        _over(answer, "smaller requests may still fit", 413)
        assert "retry-after" not in answer.headers
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 200
    assert auditor.get("/v1/audit/records").status_code == 200
    api.refused(names.EVENT_AUDIT_READ, 403, "forbidden", lambda: viewer.get("/v1/audit/records"))
    other.new_job()
    assert client.post(f"/v1/jobs/{waiting['id']}/cancel").status_code == 200
    api.clock.advance(1)
    most_of_all = most * (1 + HEADROOM)
    while store.reads.stored_bytes(finished.tenant_id) <= most_of_all:
        client.post(f"/v1/jobs/{waiting['id']}/cancel")
    api.clock.advance(1)
    # What takes rights away always passes; what gives some does not.
    assert client.post(f"/v1/jobs/{waiting['id']}/cancel").status_code == 200
    admin = api.client("boss", ADMIN, tenant="acme")
    _over(admin.post("/v1/keys", {"name": "more", "roles": ["viewer"]}), "smaller requests may still fit", 413)


def test_a_body_without_a_stated_size_counts_as_what_it_may_be(opened: Opened) -> None:
    """A body in chunks fills no tenant beyond its limit."""
    api = opened(RequestLimits(tenant_bytes=60_000))
    client = api.client("anna", tenant="acme")
    job = client.new_job()
    answer = client.put(f"/v1/jobs/{job['id']}/inputs/in", b"x", headers={"Transfer-Encoding": "chunked"})
    _over(answer, "smaller requests may still fit", 413)


def test_what_another_process_stores_counts(opened: Opened, store: Store) -> None:
    """The bytes stored are those of the whole ledger: after a second at most, a process knows what others stored."""
    api = opened(RequestLimits(tenant_bytes=60_000))
    beside = opened(RequestLimits())
    client = api.client("anna", tenant="acme")
    job = client.new_job()
    there = Client(beside, client.token)
    assert there.put(f"/v1/jobs/{job['id']}/inputs/in", b"x" * 60_000).status_code == 200
    api.clock.advance(1)
    _over(client.post("/v1/jobs", {"template": "greet"}), "smaller requests may still fit", 413)
