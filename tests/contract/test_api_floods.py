"""What may come in floods leaves few records: so many at once, and how many more there were at the minute's end."""

import asyncio
from pathlib import Path

import httpx
import pytest

from service.operations.budgets import Bounds
from service.roles import AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH, SQLITE, Store

pytestmark = pytest.mark.stores(*BOTH)

DENIED = names.EVENT_AUTH_DENIED
READ = names.EVENT_AUDIT_READ
THROTTLED = names.EVENT_REQUEST_THROTTLED
BUDGET = Bounds().records


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize(
    ("authorization", "told"),
    [
        (None, "needs an API key or token"),
        ("", "form: Bearer"),
        ("Basic YTpi", "form: Bearer"),
        ("Bearer", "form: Bearer"),
        ("Bearer ", "form: Bearer"),
        ("Bearer " + "x" * 8193, "form: Bearer"),
        ("Bearer something", "is neither an API key"),
        ("Bearer atk_", "not known"),
        ("Bearer atk_unknown_secret", "not known"),
        ("Bearer atk_%00_secret", "not known"),
        ("Bearer a.b.c", "is neither an API key"),
    ],
)
def test_a_credential_that_does_not_hold_is_401(api: ApiUnderTest, authorization: str | None, told: str) -> None:
    """The answer says what is missing and how to authenticate; the record names nobody, and never the credential."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with api.leaves(DENIED) as left:
        answer = Client(api, None).get("/v1/jobs", headers=headers)
    problem, (record,) = problem_of(answer, 401, "unauthenticated"), left
    assert told in problem["detail"]
    assert answer.headers["www-authenticate"].startswith('Bearer realm="auditrace"')
    assert ("invalid_token" in answer.headers["www-authenticate"]) == (authorization is not None)
    assert record.result == "denied"
    assert record[names.AUDIT_ACTOR_ID] == "anonymous"
    assert record[names.AUDIT_ACTION] == "LOGIN"
    assert record[names.AUDITRACE_REASON] == problem["detail"]
    assert record.target == ("http.endpoint", "/v1/jobs")
    assert record.changes == {"count": {"to": 1}}
    assert "secret" not in record.row.body


def test_a_key_with_another_secret_is_nobody(api: ApiUnderTest) -> None:
    """Knowing a key's id is not enough; the answer does not tell an unknown id from a wrong secret."""
    key = api.key("anna", VIEWER)
    wrong = Client(api, key.key[:-1] + ("A" if key.key[-1] != "A" else "B")).get("/v1/jobs")
    unknown = Client(api, "atk_0123456789abcdef_" + key.key[-43:]).get("/v1/jobs")
    assert problem_of(wrong, 401, "unauthenticated")["detail"] == problem_of(unknown, 401, "unauthenticated")["detail"]


def test_denied_requests_are_recorded_once_and_counted(api: ApiUnderTest) -> None:
    """Of a minute's denied requests the first is on record at once, and the rest as one count at the minute's end."""
    nobody = Client(api, None)
    with api.leaves(DENIED) as left:
        problems = [problem_of(nobody.get("/v1/jobs"), 401, "unauthenticated") for _ in range(5)]
    assert [problem["audit_record_id"] for problem in problems] == [left[0].row.record_id, *[None] * 4]
    with api.leaves():
        api.wait(api.tallies.flush_ended())
    api.clock.advance(60)
    with api.leaves(DENIED) as left:
        api.wait(api.tallies.flush_ended())
        api.wait(api.tallies.flush_ended())
    (counted,) = left
    assert counted.changes == {"count": {"to": 4}}
    assert counted[names.CLIENT_ADDRESS] == nobody.source
    assert counted.target == ("http.endpoint", "/v1/jobs")
    assert names.AUDITRACE_REQUEST_ID not in counted.attributes
    with api.leaves(DENIED):
        nobody.get("/v1/jobs")


def test_sources_and_routes_are_counted_apart(api: ApiUnderTest) -> None:
    """Another address or another route has a first record of its own."""
    with api.leaves(DENIED, DENIED, DENIED) as left:
        for source, path in (("192.0.2.1", "/v1/jobs"), ("2001:db8::2", "/v1/jobs"), ("192.0.2.1", "/v1/jobs/x")):
            for _ in range(2):
                Client(api, None, source=source).get(path)
    assert [record[names.CLIENT_ADDRESS] for record in left] == ["192.0.2.1", "2001:db8::2", "192.0.2.1"]
    assert [record[names.AUDIT_SOURCE_TYPE] for record in left] == ["ipv4", "ipv6", "ipv4"]
    assert left[2].target == ("http.endpoint", "/v1/jobs/{job_id}")


def test_a_flood_from_everywhere_is_bounded(store: Store, tmp_path: Path) -> None:
    """Beyond so many sources at a time all others are counted together, by route, and none goes uncounted."""
    api = ApiUnderTest(store, tmp_path, bounds=Bounds(denied_kinds=3))
    for number in range(10):
        Client(api, None, source=f"192.0.2.{number}").get("/v1/jobs")
    assert [record[names.CLIENT_ADDRESS][-1] for record in api.records(event_name=DENIED)] == ["0", "1", "2", "3"]
    api.clock.advance(60)
    api.wait(api.tallies.flush_ended())
    records = api.records(event_name=DENIED)
    assert sum(record.changes["count"]["to"] for record in records) == 10
    assert records[-1].changes == {"count": {"to": 6}, "kinds": {"to": 6}}
    assert records[-1].target == ("http.endpoint", "/v1/jobs")
    assert names.CLIENT_ADDRESS not in records[-1].attributes
    api.close()


def test_a_clean_stop_commits_what_was_counted(api: ApiUnderTest) -> None:
    """The counts of the minute in progress are committed when the application stops."""
    for _ in range(3):
        Client(api, None).get("/v1/jobs")
    with api.leaves(DENIED) as left:
        api.wait(_start_and_stop(api))
    assert left[0].changes == {"count": {"to": 2}}


def test_reads_within_the_budget_have_a_record_each(api: ApiUnderTest) -> None:
    """Each of the first reads of an actor in a minute is on record with its filter; filters are equal in any order."""
    auditor = api.client("alma", AUDITOR)
    with api.leaves(READ, READ, READ, READ) as left:
        auditor.get("/v1/audit/records?actor_id=anna&outcome=failure")
        auditor.get("/v1/audit/records?outcome=failure&actor_id=anna&limit=5")
        auditor.request("HEAD", "/v1/audit/records?outcome=failure&actor_id=anna")
        auditor.get("/v1/audit/records")
    filters = ["actor_id=anna&outcome=failure"] * 3 + [""]
    assert [record.changes for record in left] == [{"filter": {"to": text}, "count": {"to": 1}} for text in filters]
    assert {record[names.AUDIT_ACTOR_ID] for record in left} == {"alma"}
    api.clock.advance(60)
    with api.leaves():
        api.wait(api.tallies.flush_ended())


def test_reads_beyond_the_budget_are_counted_by_filter(api: ApiUnderTest) -> None:
    """The first read of each filter is on record at once, and the others as a count of that filter."""
    auditor = api.client("alma", AUDITOR)
    _use_up_reads(api, auditor)
    with api.leaves(READ, READ) as left:
        for actor in ("anna", "ben", "anna", "anna"):
            auditor.get(f"/v1/audit/records?actor_id={actor}")
    assert [record.changes["filter"]["to"] for record in left] == ["actor_id=anna", "actor_id=ben"]
    api.clock.advance(60)
    with api.leaves(READ) as left:
        api.wait(api.tallies.flush_ended())
    assert left[0].changes == {"filter": {"to": "actor_id=anna"}, "count": {"to": 2}}
    with api.leaves(READ):
        auditor.get("/v1/audit/records?actor_id=anna")


def test_simultaneous_reads_wait_for_the_record_of_the_first(api: ApiUnderTest) -> None:
    """Of readers that come at once none is answered before the first one's record is committed."""
    auditor = api.client("alma", AUDITOR)
    _use_up_reads(api, auditor)

    async def read_together() -> list[httpx.Response]:
        with api.held() as release:
            reading = [asyncio.create_task(auditor.ask("GET", "/v1/audit/records?outcome=unknown")) for _ in range(8)]
            # Requests without a record are answered meanwhile: so long that the readers come as far as they can.
            for _ in range(50):
                assert (await auditor.ask("GET", "/v1/me")).status_code == 200
            assert not any(task.done() for task in reading)
            release()
            return await asyncio.gather(*reading)

    with api.leaves(READ):
        answers = api.wait(read_together())
    assert [answer.status_code for answer in answers] == [200] * 8
    api.clock.advance(60)
    with api.leaves(READ) as left:
        api.wait(api.tallies.flush_ended())
    assert left[0].changes["count"] == {"to": 7}


def test_an_actor_that_is_refused_too_often_is_throttled(api: ApiUnderTest) -> None:
    """Each of the first refusals has its record; beyond them they are 429 with one record, until the minute ends.

    What is allowed goes on: a client with one broken request can still cancel its job.
    """
    client, other = api.client("anna", OPERATOR), api.client("ben")
    for _ in range(BUDGET):
        api.refused(names.EVENT_JOB_CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs", {}))
    with api.leaves(THROTTLED) as left:
        answers = [client.post("/v1/jobs", {}) for _ in range(4)]
    problems = [problem_of(answer, 429, "throttled") for answer in answers]
    assert [problem["audit_record_id"] for problem in problems] == [left[0].row.record_id, *[None] * 3]
    assert left[0].result == "rejected"
    assert left[0][names.AUDIT_ACTOR_ID] == "anna"
    assert left[0].target == ("http.endpoint", "/v1/jobs")
    assert left[0].changes == {"count": {"to": 1}, "event_name": {"to": names.EVENT_JOB_CREATE}}
    assert problems[0]["detail"].endswith(f"this one: {left[0][names.AUDITRACE_REASON]}")
    assert {int(answer.headers["retry-after"]) for answer in answers} <= set(range(1, 61))
    assert all("this one:" in problem["detail"] for problem in problems)
    with api.leaves(names.EVENT_JOB_CREATE) as left_by_what_is_allowed:
        client.new_job()
    assert left_by_what_is_allowed[0].result == "success"
    assert other.post("/v1/jobs", {}).status_code == 400
    api.clock.advance(int(answers[-1].headers["retry-after"]))
    with api.leaves(THROTTLED) as left:
        api.wait(api.tallies.flush_ended())
    assert left[0].changes == {"count": {"to": 3}, "event_name": {"to": names.EVENT_JOB_CREATE}}
    api.refused(names.EVENT_JOB_CREATE, 400, "invalid_request", lambda: client.post("/v1/jobs", {}))


def _use_up_reads(api: ApiUnderTest, client: Client) -> None:
    async def read() -> None:
        await asyncio.gather(*(client.ask("GET", "/v1/audit/streams") for _ in range(BUDGET)))

    api.wait(read())


async def _start_and_stop(api: ApiUnderTest) -> None:
    async with api.app.lifespan():
        pass
