"""Attacks by noise: no flood hides an act of anybody, and neither the disk nor the memory grows without bound."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from service.api.routing import EVENT
from service.operations.budgets import Bounds
from service.roles import AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, Record, problem_of
from tests.support.both_stores import BOTH, SQLITE, Store

pytestmark = pytest.mark.stores(*BOTH)

BOUNDS = Bounds()
DENIED = names.EVENT_AUTH_DENIED
READ = names.EVENT_AUDIT_READ
RUN = names.EVENT_JOB_RUN_TRIGGER
CREATE = names.EVENT_JOB_CREATE
THROTTLED = names.EVENT_REQUEST_THROTTLED


def _number(records: Iterable[Record]) -> int:
    """Return of how many events these are the records."""
    return sum(record.changes.get("count", {"to": 1})["to"] for record in records)


def _end_minute(api: ApiUnderTest) -> None:
    api.clock.advance(60)
    api.wait(api.tallies.flush_ended())


def _send(
    api: ApiUnderTest, client: Client, method: str, paths: Iterable[str], content: bytes | None = None
) -> list[int]:
    """Send requests, one by one for the budget, then 50 at a time; return the statuses of their answers, in order."""
    transport = httpx.ASGITransport(app=api.call, client=(client.source, 1234))
    headers = {"Authorization": f"Bearer {client.token}"} if client.token else {}
    sender = httpx.AsyncClient(transport=transport, base_url="http://auditrace.test", headers=headers)

    async def send(asked: list[str]) -> list[httpx.Response]:
        return await asyncio.gather(*(sender.request(method, path, content=content) for path in asked))

    statuses: list[int] = []
    rest = list(paths)
    while rest:
        together = 1 if len(statuses) < BOUNDS.records else 50
        asked, rest = rest[:together], rest[together:]
        statuses += [answer.status_code for answer in api.wait(send(asked))]
    api.wait(sender.aclose())
    return statuses


def _runs(number: int) -> list[str]:
    """Return so many paths at which jobs that do not exist would be run."""
    return [f"/v1/jobs/{uuid.UUID(int=job)}/run" for job in range(1, number + 1)]


def test_keyless_requests_cost_no_reader_its_filter(api: ApiUnderTest) -> None:
    """1,100 requests without a key from 1,100 addresses leave each filter of an auditor as it is, counted or not."""
    auditor = api.client("alma", AUDITOR)

    for number in range(1100):
        _send(api, Client(api, None, source=f"10.0.{number // 256}.{number % 256}"), "GET", ["/v1/jobs"])
    budgeted = [f"target_id=budgeted-{number}" for number in range(BOUNDS.records)]
    counted = [f"target_id=counted-{number}" for number in range(BOUNDS.kinds)]
    statuses = [
        _send(api, auditor, "GET", (f"/v1/audit/records?{text}" for text in texts))
        for texts in (budgeted, counted, counted)
    ]
    assert {status for each in statuses for status in each} == {200}
    _end_minute(api)
    reads: Counter[str] = Counter()
    for read in api.records(event_name=READ):
        reads[read.changes["filter"]["to"]] += _number([read])
    assert reads == {**dict.fromkeys(budgeted, 1), **dict.fromkeys(counted, 2)}
    denied = api.records(event_name=DENIED)
    assert len({record.attributes.get(names.CLIENT_ADDRESS) for record in denied[:-1]}) == BOUNDS.denied_kinds + 1
    assert _number(denied) == 1100
    assert denied[-1].changes["count"] == {"to": 1100 - BOUNDS.denied_kinds - 1}


def test_an_unknown_key_does_not_hide_a_revoked_one(api: ApiUnderTest) -> None:
    """From one source and at one route, each reason of a denied request has a first record of its own."""
    revoked = api.client("rene", VIEWER)
    api.revoke("rene")
    with api.leaves(DENIED, DENIED) as left:
        for _ in range(3):
            Client(api, "atk_unknown_secret").get("/v1/jobs")
            revoked.get("/v1/jobs")
    assert [record[names.AUDITRACE_REASON].split(":")[0] for record in left] == [
        "the API key is not known",
        "the API key was revoked",
    ]


def test_harmless_refusals_do_not_hide_a_lack_of_right(api: ApiUnderTest) -> None:
    """Behind 500 malformed requests and 500 missing jobs, each 403 of the budget has its record and says 403."""
    client = api.client("omar", OPERATOR)
    job = client.drafted_job("line-count", path="/etc/hosts")
    _send(api, client, "POST", ["/v1/jobs"] * 500, b"{}")
    _send(api, client, "POST", _runs(500))
    confirmation = {"confirmed": True, "plan_sha256": job["plan"]["sha256"]}
    for _ in range(BOUNDS.records):
        _, record = api.refused(
            names.EVENT_JOB_CONFIRM,
            403,
            "forbidden",
            lambda: client.post(f"/v1/jobs/{job['id']}/confirm", confirmation),
        )
        assert record.target == ("job", job["id"])


def test_a_first_403_is_whole_beyond_the_budget(api: ApiUnderTest) -> None:
    """Beyond the budget, the first 403 of an event and target is on record as such; only the same again is counted."""
    client = api.client("vera", VIEWER)
    missing = _runs(BOUNDS.kinds + 20)
    assert set(_send(api, client, "POST", missing[:1] * BOUNDS.records)) == {403}
    for path in missing[: BOUNDS.kinds + 1]:
        _, record = api.refused(RUN, 403, "forbidden", lambda path=path: client.post(path))
        assert f"/v1/jobs/{record.target[1]}/run" == path
    with api.leaves():
        for path in (missing[0], missing[0], missing[5], *missing[BOUNDS.kinds + 1 :]):
            assert problem_of(client.post(path), 429, "throttled")["audit"] is None
    _end_minute(api)
    counts = {record.target[1]: record for record in api.records(event_name=THROTTLED)}
    assert {target: _number([record]) for target, record in counts.items()} == {
        missing[0].split("/")[3]: 2,
        missing[5].split("/")[3]: 1,
        "other": 19,
    }
    assert {record.result for record in counts.values()} == {"denied"}
    assert counts["other"].changes["kinds"] == {"to": 19}
    assert "this needs the role operator" in counts["other"][names.AUDITRACE_REASON]


def test_simultaneous_first_403s_wait_for_one_record(api: ApiUnderTest) -> None:
    """Of the same 403s that come at once beyond the budget, one has the record and the others are counted."""
    client = api.client("vera", VIEWER)
    (path,) = _runs(1)
    _send(api, client, "POST", ["/v1/jobs"] * BOUNDS.records, b'{"template": "greet"}')
    with api.leaves(RUN) as left:
        statuses = _send(api, client, "POST", [path] * 20)
    assert sorted(statuses) == [403] + [429] * 19
    _end_minute(api)
    (counted,) = api.records(event_name=THROTTLED)
    assert _number([*left, counted]) == 20


def test_refused_reads_of_the_trail_are_counted_as_such(api: ApiUnderTest) -> None:
    """Who may not read the trail has a record each time within the budget; beyond it, the count says what was tried."""
    client = api.client("vera", VIEWER)
    statuses = _send(api, client, "GET", ["/v1/audit/records"] * (BOUNDS.records + 5))
    assert sorted(statuses) == [403] * (BOUNDS.records + 1) + [429] * 4
    _end_minute(api)
    refused, (counted,) = api.records(event_name=READ), api.records(event_name=THROTTLED)
    assert len(refused) == BOUNDS.records + 1
    assert {record.result for record in [*refused, counted]} == {"denied"}
    assert counted.target == ("ledger", "auditrace")
    assert counted.changes == {"event_name": {"to": READ}, "filter": {"to": ""}, "count": {"to": 4}}


def test_a_refused_read_states_what_was_sought(api: ApiUnderTest) -> None:
    """Each record of a refused read has its filter, and that of an artifact has the job; also beyond the budget."""
    job = api.client("anna").finished_job("exit", {"out.txt": b"hello"})
    viewer, auditor = api.client("vera", VIEWER), api.client("alma", AUDITOR)
    for number in range(62):
        with api.leaves(names.EVENT_AUDIT_READ) as left:
            assert viewer.get(f"/v1/audit/records?q=x{number}").status_code == 403
        assert left[0][names.AUDITRACE_CHANGES] == {"filter": {"to": f"q=x{number}"}}
    with api.leaves(names.EVENT_ARTIFACT_READ) as left:
        assert auditor.get(f"/v1/jobs/{job['id']}/runs/1/artifacts/out.txt").status_code == 403
    assert left[0][names.AUDITRACE_JOB_ID] == job["id"]


def test_one_actor_takes_nothing_from_another(api: ApiUnderTest) -> None:
    """An actor that floods reads and refusals leaves the budget, the kinds and the answers of another as they are."""
    noisy, quiet = api.client("nora"), api.client("quinn")
    for client in (noisy, api.client("nick")):
        _send(api, client, "POST", ["/v1/jobs"] * 200, b"{}")
        _send(api, client, "GET", (f"/v1/audit/records?target_id={number}" for number in range(200)))
    for path in _runs(3):
        api.refused(RUN, 404, "not_found", lambda path=path: quiet.post(path))
    with api.leaves(READ) as left:
        quiet.get("/v1/audit/records?actor_id=nora")
    assert left[0].changes["filter"] == {"to": "actor_id=nora"}


def test_actors_for_whom_there_is_no_room_have_records(store: Store, tmp_path: Path) -> None:
    """When more actors come than are kept in memory, each request of the others has its record: nothing is folded."""
    bounds = Bounds(records=2, rows=3)
    api = ApiUnderTest(store, tmp_path, bounds=bounds)
    for name in ("anna", "ben", "cora", "dora"):
        assert _send(api, api.client(name, AUDITOR), "GET", ["/v1/audit/records"] * 5) == [200] * 5
    _end_minute(api)
    reads = Counter(record[names.AUDIT_ACTOR_ID] for record in api.records(event_name=READ))
    # The three rows are anna, anna's one kind, and ben, for whose kind no room is left.
    assert reads == {"anna": bounds.records + 2, "ben": 5, "cora": 5, "dora": 5}
    assert _number(api.records(event_name=READ)) == 20
    api.close()


def test_a_count_names_an_address_only_if_all_had_it(api: ApiUnderTest) -> None:
    """The count of reads from two addresses names none, and that of reads from one address names it."""
    token = api.key("alma", AUDITOR).key
    near, far = (Client(api, token, source=source) for source in ("192.0.2.1", "192.0.2.2"))
    _send(api, near, "GET", ["/v1/audit/streams"] * BOUNDS.records)
    for client, actor in ((near, "anna"), (near, "anna"), (far, "ben"), (far, "ben"), (near, "ben")):
        client.get(f"/v1/audit/records?actor_id={actor}")
    _end_minute(api)
    *_, of_anna, of_ben = sorted(api.records(event_name=READ), key=lambda record: record.changes["count"]["to"])
    assert of_anna.attributes.get(names.CLIENT_ADDRESS) == "192.0.2.1"
    assert names.CLIENT_ADDRESS not in of_ben.attributes


def test_requests_at_once_have_at_most_twice_the_budget(api: ApiUnderTest) -> None:
    """Of 500 requests in progress at once, all refused alike, at most 120 have a record, and none is uncounted."""
    client = api.client("olga", OPERATOR)
    (path,) = _runs(1)

    async def send() -> list[httpx.Response]:
        return await asyncio.gather(*(client.ask("POST", path) for _ in range(500)))

    statuses = Counter(answer.status_code for answer in api.wait(send()))
    _end_minute(api)
    tried, throttled = api.records(event_name=RUN), api.records(event_name=THROTTLED)
    assert statuses == {404: len(tried), 429: 500 - len(tried)}
    assert BOUNDS.records <= len(tried) <= 2 * BOUNDS.records
    assert len(throttled) == 2
    assert _number([*tried, *throttled]) == 500


@pytest.mark.stores(SQLITE)
def test_the_routes_have_few_events(api: ApiUnderTest) -> None:
    """What is folded keeps its event, so the number of events bounds the records: docs/guarantees.md counts on 16."""
    handlers = [handler for route in api.app.routes for handler in getattr(route, "route_handlers", ())]
    events = {handler.opt[EVENT] for handler in handlers if EVENT in handler.opt}
    assert 10 <= len(events) <= 16
