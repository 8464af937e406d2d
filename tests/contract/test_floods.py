"""Floods under the limits that are the default: how many records, look-ups and bytes of memory they cost at most.

`AUDITRACE_TEST_LONG` sends 100,000 requests in each, else it is a part of them.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from service.api.auth import Authenticator, BearerAuthenticator, Credential
from service.config import read_settings
from service.operations.budgets import Bounds
from service.operations.rates import BURST_S, Rate, RequestLimits
from service.roles import OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, Record
from tests.support.both_stores import SQLITE, Store
from tests.support.depth import IS_LONG

pytestmark = pytest.mark.stores(SQLITE)

DEFAULTS: Final = read_settings({}).limits
REQUESTS: Final = 100_000 if IS_LONG else 4_000
ADDRESSES: Final = 10_000
AT_ONCE: Final = 50
OUTSIDERS_MOST: Final = 2_000 * 1.5
"""Records a minute: docs/guarantees.md, section 10."""


class _Looked:
    """Counts the look-ups."""

    def __init__(self, behind: Authenticator) -> None:
        self.count = 0
        self._behind = behind

    async def authenticate(self, token: str) -> Credential:
        """Count, and ask the real one."""
        self.count += 1
        return await self._behind.authenticate(token)


def _held(rate: Rate | None) -> int:
    """Return what a bucket holds at first."""
    assert rate is not None
    return rate.amount * BURST_S // rate.seconds


def _scope(method: str, path: str, token: str | None, address: str) -> dict[str, Any]:
    headers = [(b"host", b"a"), (b"user-agent", b"flood/1")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": (address, 1234),
        "server": ("a", 80),
    }


async def _status(api: ApiUnderTest, scope: dict[str, Any], body: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await api.call(scope, receive, send)
    return statuses[0]


def _flood(
    api: ApiUnderTest, scopes: Iterable[dict[str, Any]], meanwhile: Callable[[], object], body: bytes = b""
) -> Counter[int]:
    """Send all requests, 50 at a time, and do something else between them; return how often each status came."""
    statuses: Counter[int] = Counter()
    api.spans.shutdown()

    async def send(group: Sequence[dict[str, Any]]) -> None:
        statuses.update(await asyncio.gather(*(_status(api, scope, body) for scope in group)))

    rest = list(scopes)
    for at in range(0, len(rest), AT_ONCE):
        api.wait(send(rest[at : at + AT_ONCE]))
        if at % 1000 == 0:
            meanwhile()
    return statuses


def _number(records: Iterable[Record]) -> int:
    return sum(record.changes["count"]["to"] for record in records)


def _end_minute(api: ApiUnderTest) -> None:
    api.clock.advance(60)
    api.wait(api.tallies.flush_ended())


def _expect(client: Client, status: int = 201) -> None:
    answer = client.post("/v1/jobs", {"template": "greet", "parameters": {"name": "x"}})
    assert answer.status_code == status, answer.text


def test_a_flood_from_10_000_addresses_is_bounded(store: Store, tmp_path: Path) -> None:
    """Wrong keys from 10,000 addresses cost few look-ups, few records and little memory; a client works meanwhile."""
    looked: list[_Looked] = []

    def authenticate(keys: Authenticator) -> Authenticator:
        looked.append(_Looked(BearerAuthenticator(keys)))
        return looked[0]

    api = ApiUnderTest(store, tmp_path, limits=DEFAULTS, authenticate=authenticate)
    client, fresh = api.client("anna", OPERATOR), api.client("fred", OPERATOR)
    before = len(api.records(actor_id="anonymous"))
    addresses = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(ADDRESSES)]
    scopes = [
        _scope("GET", "/v1/jobs", f"atk_{n:016x}_{'x' * 43}" if n % 3 else None, addresses[n % ADDRESSES])
        for n in range(max(REQUESTS, ADDRESSES))
    ]
    most, sent = _held(DEFAULTS.unauthenticated_requests), len(scopes)
    statuses = _flood(api, scopes, lambda: _expect(client))
    # The clock moves by a microsecond when it is read.
    assert most <= statuses[401] <= most + sent * 0.01
    assert statuses[401] + statuses[429] == sent
    assert looked[0].count <= most + sent * 0.01
    assert api.throttle.rows <= most + sent * 0.01 + 10
    _expect(fresh)
    _end_minute(api)
    records = api.records(actor_id="anonymous")[before:]
    assert _number(records) == sent
    assert len(records) <= OUTSIDERS_MOST
    assert sum(len(record.row.body) for record in records) < 8_000_000
    api.close()


def test_guesses_from_one_address_are_few(store: Store, tmp_path: Path) -> None:
    """One address has its bucket, and leaves the others theirs."""
    api = ApiUnderTest(store, tmp_path, limits=DEFAULTS)
    client, one = api.client("anna", OPERATOR), "192.0.2.1"
    client.source = one
    scopes = [_scope("POST", "/v1/jobs", f"atk_{n:016x}_{'x' * 43}", one) for n in range(REQUESTS)]
    statuses = _flood(api, scopes, lambda: _expect(client))
    most = _held(DEFAULTS.source_requests)
    assert most <= statuses[401] <= most + REQUESTS * 0.001
    assert Client(api, None, source="192.0.2.2").get("/v1/jobs").status_code == 401
    _end_minute(api)
    records = api.records(actor_id="anonymous")
    assert _number(records) == REQUESTS + 1
    assert len(records) <= 10
    api.close()


def test_a_client_that_floods_is_bounded(store: Store, tmp_path: Path) -> None:
    """One credential is carried out as often as its rate allows, its other requests are counted; others pass."""
    limits = DEFAULTS if IS_LONG else RequestLimits(credential_requests=Rate(100, 1))
    api = ApiUnderTest(store, tmp_path, limits=limits)
    hostile, client = api.client("mallory", VIEWER), api.client("anna", OPERATOR)
    paths = ("/v1/jobs", "/v1/templates", "/v1/me", "/v1/audit/records")
    scopes = [_scope("GET", paths[n % len(paths)], hostile.token, f"10.0.{n % 256}.1") for n in range(REQUESTS)]
    statuses = _flood(api, scopes, lambda: _expect(client))
    most = _held(limits.credential_requests)
    _end_minute(api)
    throttled = api.records(event_name=names.EVENT_REQUEST_THROTTLED, actor_id="mallory")
    over = [record for record in throttled if "limit" in record.changes]
    assert REQUESTS - most * 1.2 <= _number(over) <= REQUESTS - most
    assert len(over) == 2 * len(paths)
    assert statuses[200] + statuses[403] <= most * 1.2
    assert len(api.records(actor_id="mallory")) <= Bounds().records + 1 + len(throttled)
    api.close()


def test_a_tenant_that_floods_is_bounded(store: Store, tmp_path: Path) -> None:
    """However many actors it has, a tenant makes the records that its rate allows; another tenant does not notice."""
    limits = RequestLimits(tenant_records=Rate(3_000, 60))
    api = ApiUnderTest(store, tmp_path, limits=limits)
    hostile = [api.client(f"mallory-{n}", OPERATOR, tenant="acme") for n in range(10)]
    client = api.client("anna", OPERATOR, tenant="other")
    scopes = [_scope("POST", "/v1/jobs", hostile[n % 10].token, "10.0.0.1") for n in range(REQUESTS // 2)]
    for scope in scopes:
        scope["headers"].append((b"content-type", b"application/json"))
    body = b'{"template": "greet", "parameters": {"name": "x"}}'
    statuses = _flood(api, scopes, lambda: _expect(client), body)
    most = _held(limits.tenant_records)
    # Requests in progress at once do not see each other's records.
    assert most - 20 <= statuses[201] <= most * 1.2 + AT_ONCE
    assert statuses[201] + statuses[429] == len(scopes)
    _end_minute(api)
    records = api.records(tenant_id="acme", event_name=names.EVENT_REQUEST_THROTTLED)
    assert _number(records) == statuses[429]
    assert len(records) == 2 * len(hostile)
    api.close()
