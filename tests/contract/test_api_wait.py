"""A request that waits for the end of a job: woken by commits, else by a look now and then, and never in the way."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.waiting import MAX_OF_ONE_ACTOR
from service.roles import EMITTER, VIEWER
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.poll_until import poll_until
from tests.support.served import Served

pytestmark = pytest.mark.stores(*BOTH)

NEVER_S = 3600.0
LONGEST = "?wait=60s"


@pytest.fixture
def woken(store: Store, tmp_path: Path) -> Iterator[ApiUnderTest]:
    """An API that looks at jobs only when something was committed."""
    api = ApiUnderTest(store, tmp_path, poll_s=NEVER_S)
    yield api
    api.close()


@contextmanager
def _asking(api: ApiUnderTest, client: Client, *paths: str) -> Iterator[list[Future[httpx.Response]]]:
    with ThreadPoolExecutor(len(paths)) as pool:
        before = api.waits.count
        yield [pool.submit(client.get, path) for path in paths]
        poll_until(lambda: api.waits.count <= before, "nobody waits any more")


def _queued(client: Client) -> dict[str, Any]:
    job = client.drafted_job()
    answer = client.post(f"/v1/jobs/{job['id']}/run")
    assert answer.status_code == 200
    return answer.json()


def test_a_commit_ends_the_wait(woken: ApiUnderTest) -> None:
    """The answer comes with the final state, as a look without `wait` shows it, ETag included; other jobs wait on."""
    client = woken.client()
    job, other = _queued(client), client.new_job()
    with _asking(woken, client, f"/v1/jobs/{job['id']}{LONGEST}", f"/v1/jobs/{other['id']}{LONGEST}") as asked:
        poll_until(lambda: woken.waits.count == 2, "both wait")
        woken.finish_run(job["id"])
        answer = asked[0].result(60)
        assert not asked[1].done()
        client.post(f"/v1/jobs/{other['id']}/cancel")
        assert asked[1].result(60).json()["status"] == "cancelled"
    plain = client.get(f"/v1/jobs/{job['id']}")
    assert answer.json() == plain.json()
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["etag"] == plain.headers["etag"] == f'"{answer.json()["version"]}"'


def test_what_nobody_tells_of_is_found(store: Store, tmp_path: Path) -> None:
    """A change by a process that sends no hint ends the wait at the next look."""
    api = ApiUnderTest(store, tmp_path, poll_s=0.05)
    client = api.client()
    job = client.new_job()
    elsewhere = ApiUnderTest(store, tmp_path)
    with _asking(api, client, f"/v1/jobs/{job['id']}{LONGEST}") as (asked,):
        poll_until(lambda: api.waits.count == 1, "it waits")
        Client(elsewhere, client.token).post(f"/v1/jobs/{job['id']}/cancel")
        assert asked.result(60).json()["status"] == "cancelled"
    elsewhere.close()
    api.close()


@pytest.mark.parametrize("wait", ["0s", "1ms", "20ms"])
def test_the_wait_ends_with_its_time(woken: ApiUnderTest, wait: str) -> None:
    """When the time is over the answer is the job as it is: 200, and not final."""
    client = woken.client()
    job = client.new_job()
    answer = client.get(f"/v1/jobs/{job['id']}?wait={wait}")
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "created", '"1"')
    assert woken.waits.count == 0


def test_a_final_job_is_answered_at_once(woken: ApiUnderTest) -> None:
    """Who waits for what is over does not wait; nor does who may not look, or asks for what is not there."""
    client = woken.client()
    job = client.finished_job()
    assert client.get(f"/v1/jobs/{job['id']}{LONGEST}").json()["status"] == "succeeded"
    nothing = f"/v1/jobs/019b76da-a800-7000-8000-000000000000{LONGEST}"
    problem_of(client.get(nothing), 404, "not_found")
    problem_of(woken.client("theo", tenant="theirs").get(f"/v1/jobs/{job['id']}{LONGEST}"), 404, "not_found")
    problem_of(woken.client("emil", EMITTER).get(f"/v1/jobs/{job['id']}{LONGEST}"), 403, "forbidden")
    assert woken.waits.count == 0


@pytest.mark.parametrize("wait", ["61s", "2m", "1h", "60001ms", "30", "s", "-1s", "1.5s", "", "30s&wait=30s"])
def test_a_wait_that_cannot_be_is_refused(woken: ApiUnderTest, wait: str) -> None:
    """More than a minute, and what is no duration, is 400 and names the parameter."""
    client = woken.client("vera", VIEWER)
    job = woken.client().new_job()
    problem = problem_of(client.get(f"/v1/jobs/{job['id']}?wait={wait}"), 400, "invalid_request")
    assert "wait" in problem["detail"]


def test_many_wait_and_hold_no_thread(woken: ApiUnderTest) -> None:
    """More requests wait than there are threads, and what else is asked goes on; one commit ends them all."""
    client = woken.client()
    job = client.new_job()
    with _asking(woken, client, *[f"/v1/jobs/{job['id']}{LONGEST}"] * MAX_OF_ONE_ACTOR) as asked:
        poll_until(lambda: woken.waits.count == MAX_OF_ONE_ACTOR, "all wait")
        assert client.new_job()["status"] == "created"
        client.post(f"/v1/jobs/{job['id']}/cancel")
        assert {each.result(60).json()["status"] for each in asked} == {"cancelled"}


def test_so_many_wait_and_no_more(store: Store, tmp_path: Path) -> None:
    """Beyond the limit of a process, or of an actor in it, a wait is 503 with `Retry-After`; without one it is 200."""
    api = ApiUnderTest(store, tmp_path, max_waiting=MAX_OF_ONE_ACTOR + 1)
    anna, bert, vera = api.client("anna"), api.client("bert", VIEWER), api.client("vera", VIEWER)
    path = f"/v1/jobs/{anna.new_job()['id']}"
    with _asking(api, anna, *[path + LONGEST] * MAX_OF_ONE_ACTOR) as asked:
        poll_until(lambda: api.waits.count == MAX_OF_ONE_ACTOR, "as many as one actor may have wait")
        refused = anna.get(path + LONGEST)
        problem_of(refused, 503, "try_later")
        assert int(refused.headers["retry-after"]) >= 1
        with _asking(api, bert, path + LONGEST) as (one_more,):
            poll_until(lambda: api.waits.count == MAX_OF_ONE_ACTOR + 1, "another actor waits")
            problem_of(vera.get(path + LONGEST), 503, "try_later")
            assert vera.get(path).status_code == 200
            anna.post(f"{path}/cancel")
            assert one_more.result(60).status_code == 200
        assert {each.result(60).status_code for each in asked} == {200}
    api.close()


def test_a_stop_ends_all_waits(woken: ApiUnderTest) -> None:
    """When the process is about to stop, who waits is answered with the job as it is, and nobody waits any more."""
    client = woken.client()
    path = f"/v1/jobs/{client.new_job()['id']}{LONGEST}"
    with _asking(woken, client, path) as (asked,):
        poll_until(lambda: woken.waits.count == 1, "it waits")
        woken.loop.call_soon_threadsafe(woken.waits.release)
        assert asked.result(60).json()["status"] == "created"
    assert client.get(path).json()["status"] == "created"


@pytest.mark.stores(SQLITE)
def test_a_client_that_hangs_up_gives_its_place_back(woken: ApiUnderTest) -> None:
    """A closed connection ends its wait."""
    client = woken.client()
    path = f"/v1/jobs/{client.new_job()['id']}{LONGEST}"
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    with Served(woken) as served:
        with served.connect() as connection:
            connection.sendall(request.encode())
            poll_until(lambda: woken.waits.count == 1, "it waits")
        poll_until(lambda: woken.waits.count == 0, "its place is free")


def test_an_outage_ends_with_the_time(store: Store, tmp_path: Path) -> None:
    """While jobs cannot be read, who waits is told so by an answer of 503, and not by a request without an end."""
    api = ApiUnderTest(store, tmp_path, poll_s=0.05)
    client = api.client()
    job = client.new_job()
    with _asking(api, client, f"/v1/jobs/{job['id']}?wait=2s") as (asked,):
        poll_until(lambda: api.waits.count == 1, "it waits")
        store.reads.close()
        problem_of(asked.result(60), 503, "ledger_unavailable")
    api.close()
