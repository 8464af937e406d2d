"""How many exports, downloads and uploads are in progress at once, and that monitoring is answered beside them."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from service.api.parts import (
    BULK_THREADS,
    MAX_DOWNLOADS_OF_ONE_ACTOR,
    MAX_EXPORTS,
    MAX_EXPORTS_OF_ONE_ACTOR,
    MAX_UPLOADED_BYTES_OF_ONE_ACTOR,
    ApiServices,
)
from service.roles import AUDITOR, OPERATOR, VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH
from tests.support.poll_until import poll_until
from tests.support.served import Served

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.stores(*BOTH)

EXPORT = "/v1/audit/export"


@contextmanager
def busy(submit: Any, threads: int) -> Iterator[None]:
    """Keep so many threads busy within the block; `submit` hands work to one of them."""
    begun, end = threading.Semaphore(0), threading.Event()

    def work() -> None:
        begun.release()
        end.wait()

    for _ in range(threads):
        submit(work)
    try:
        for _ in range(threads):
            assert begun.acquire(timeout=60)
        yield
    finally:
        end.set()


def asked(api: ApiUnderTest, client: Client, path: str, number: int) -> Sequence["Future[httpx.Response]"]:
    """Send requests, and wait for none of their answers."""
    return [asyncio.run_coroutine_threadsafe(client.ask("GET", path), api.loop) for _ in range(number)]


def test_so_many_exports_are_in_progress_and_no_more(api: ApiUnderTest) -> None:
    """One more of an actor is 429, refused on record; one more of the process is 503; the others come to their end."""
    parts: ApiServices = api.parts
    auditors = [api.client(f"alma-{number}", AUDITOR) for number in range(MAX_EXPORTS // MAX_EXPORTS_OF_ONE_ACTOR)]
    late, anna = api.client("late", AUDITOR), api.client("anna")
    with busy(parts.bulk_threads.submit, BULK_THREADS):
        begun = asked(api, auditors[0], EXPORT, MAX_EXPORTS_OF_ONE_ACTOR)
        poll_until(lambda: parts.exports.held == len(begun), "the exports of one")
        refused = auditors[0].get(EXPORT)
        problem_of(refused, 429, "too_many_at_once")
        assert refused.headers["retry-after"] == "5"
        (record,) = api.records(event_name=names.EVENT_AUDIT_EXPORT, result="rejected")
        assert record.row.record_id == refused.json()["audit_record_id"]
        for auditor in auditors[1:]:
            begun = [*begun, *asked(api, auditor, EXPORT, MAX_EXPORTS_OF_ONE_ACTOR)]
        poll_until(lambda: parts.exports.held == MAX_EXPORTS, "the exports of all")
        problem_of(late.get(EXPORT), 503, "try_later")
        problem_of(api.client("vera", VIEWER).get(EXPORT), 403, "forbidden")
        assert anna.new_job()["status"] == "created"
        assert anna.get("/health/live").status_code == 200
    assert {each.result(60).status_code for each in begun} == {200}
    poll_until(lambda: parts.exports.held == 0, "no export is in progress")
    assert late.get(EXPORT).status_code == 200


def test_so_many_downloads_are_in_progress_and_small_ones_are_free(api: ApiUnderTest) -> None:
    """One more long artifact of an actor is 429; short ones are not counted, and long ones come byte for byte."""
    owner = api.someone()
    long = bytes(range(256)) * 4096 + b"end"
    job = owner.finished_job(artifacts={"out/long": long, "out/short": b"short", "out/empty": b""})
    folder = f"/v1/jobs/{job['id']}/runs/1/artifacts/out"
    with busy(api.parts.bulk_threads.submit, BULK_THREADS):
        begun = asked(api, owner, f"{folder}/long", MAX_DOWNLOADS_OF_ONE_ACTOR)
        poll_until(lambda: api.parts.downloads.held == len(begun), "the downloads of one")
        problem_of(owner.get(f"{folder}/long"), 429, "too_many_at_once")
        short = asked(api, owner, f"{folder}/short", 3)
    answers = [each.result(60) for each in begun]
    assert {each.content for each in answers} == {long}
    assert {each.headers["content-length"] for each in answers} == {str(len(long))}
    assert {each.result(60).content for each in short} == {b"short"}
    assert owner.get(f"{folder}/empty").content == b""
    head = owner.request("HEAD", f"{folder}/long")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(long)))


def test_bodies_in_memory_are_bounded(api: ApiUnderTest) -> None:
    """Uploads that do not end hold so many bytes of an actor; one more is 429 on record; small ones of others go on."""
    size, owner, other = api.parts.settings.max_input_bytes, api.someone(OPERATOR), api.someone(OPERATOR)
    path = f"/v1/jobs/{owner.new_job()['id']}/inputs/a"
    head = f"PUT {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {owner.token}\r\nContent-Length: {size}\r\n\r\n"
    with Served(api) as served:
        held = [served.connect() for _ in range(MAX_UPLOADED_BYTES_OF_ONE_ACTOR // size)]
        for connection in held:
            connection.sendall(head.encode() + b"x")
        poll_until(lambda: api.parts.uploads.held == MAX_UPLOADED_BYTES_OF_ONE_ACTOR, "the uploads")
        problem_of(owner.put(path, b"small"), 429, "too_many_at_once")
        assert other.put(f"/v1/jobs/{other.new_job()['id']}/inputs/a", b"small").status_code == 200
        for connection in held:
            connection.close()
        poll_until(lambda: api.parts.uploads.held == 0, "no upload is in progress")
        assert owner.put(path, b"small").status_code == 200


def test_monitoring_is_answered_when_all_threads_are_busy(api: ApiUnderTest) -> None:
    """Alive, ready and metrics need no thread that requests use; only causes are left out when no key can be read."""
    stranger, admin = Client(api, None), api.someone()
    api.loop.call_soon_threadsafe(api.loop.set_default_executor, ThreadPoolExecutor(3))

    def submit(work: Any) -> None:
        api.loop.call_soon_threadsafe(api.loop.run_in_executor, None, work)

    api.checks["delivery"] = "held up: no route"
    with busy(submit, 3), busy(api.parts.bulk_threads.submit, BULK_THREADS):
        assert stranger.get("/health/live").json()["status"] == "live"
        assert stranger.get("/health/ready").json()["checks"]["delivery"] == "degraded"
        assert stranger.get("/metrics").status_code == 200
        assert admin.get("/health/ready").json()["checks"]["delivery"] == "degraded"
    assert admin.get("/health/ready").json()["checks"]["delivery"] == "held up: no route"
