"""The edges of HTTP: methods, odd paths, bodies in pieces, clients that hang up; asked of the real server by bytes."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import LedgerUnavailableError
from service.operations import exports
from service.ports import Page, RecordFilter, StoredRecord
from service.roles import EMITTER
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.both_stores import BOTH
from tests.support.poll_until import poll_until
from tests.support.served import Served, read_to_end

on_both = pytest.mark.stores(*BOTH)
"""For what reaches the ledger; the rest of this file is about HTTP alone."""

BODY = json.dumps({"template": "greet", "parameters": {"name": "x"}}).encode()


@pytest.fixture(scope="module")
def served(shared_api: ApiUnderTest) -> Iterator[Served]:
    """The API of this file behind the real server."""
    with Served(shared_api) as running:
        yield running


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/runs", "/health/live", "/metrics", "/schema", "/"]
)
def test_head_answers_what_get_does_without_the_body(shared_api: ApiUnderTest, path: str) -> None:
    """HEAD has the status and headers of GET, the length included, and no body."""
    client = shared_api.someone()
    path = path.replace("{id}", client.new_job()["id"])
    got, head = client.get(path), client.request("HEAD", path)
    own = {"x-request-id", "traceresponse"}
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in got.headers.items() if k not in own
    }


@on_both
def test_a_head_of_something_audited_is_recorded(shared_api: ApiUnderTest) -> None:
    """Whoever asks for an artifact's headers learns its hash: that is a reading too."""
    client = shared_api.someone()
    job = client.finished_job(artifacts={"stdout": b"x"})
    with shared_api.leaves(names.EVENT_ARTIFACT_READ) as left:
        head = client.request("HEAD", f"/v1/jobs/{job['id']}/runs/1/artifacts/stdout")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "1")
    assert left[0][names.HTTP_REQUEST_METHOD] == "HEAD"


def test_options_lists_the_methods_and_records_nothing(shared_api: ApiUnderTest) -> None:
    """OPTIONS answers 204 with the methods of the path, all of them."""
    client = shared_api.someone()
    for path, allow in (
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        (f"/v1/jobs/{client.new_job()['id']}/draft", "OPTIONS, POST"),
        ("/health/live", "GET, HEAD, OPTIONS"),
    ):
        with shared_api.leaves():
            answer = client.request("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allow, b"")


def test_no_other_origin_may_read_answers(shared_api: ApiUnderTest) -> None:
    """Answers never carry a permission for pages of other origins."""
    client = shared_api.someone()
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = client.request(method, "/v1/jobs", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_what_breaks_inside_stays_inside(shared_api: ApiUnderTest) -> None:
    """An unexpected failure is a 500 problem that tells nothing of it; the log has it under the request id."""

    class Broken(dict[str, str]):
        def values(self) -> Any:
            raise ArithmeticError("the secret of the house")

    kept, shared_api.checks = shared_api.checks, Broken()
    answer = Client(shared_api, None).get("/health/ready")
    shared_api.checks = kept
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error_type"] == "internal_error"
    assert "secret" not in answer.text
    assert "ArithmeticError" not in answer.text


@on_both
def test_a_change_that_fails_unexpectedly_is_recorded(
    shared_api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the code itself is 500, leaves a record with result `error`, and changes nothing."""

    def broken(*_: object) -> None:
        raise ArithmeticError("the secret of the house")

    client = shared_api.someone()
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}"
    monkeypatch.setattr("service.operations.jobs.render_plan", broken)
    with shared_api.leaves(names.EVENT_JOB_DRAFT) as left:
        answer = client.post(f"{path}/draft")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert left[0].result == "error"
    assert left[0][names.ERROR_TYPE] == "ArithmeticError"
    assert "secret" not in left[0].row.body
    assert client.get(path).json()["version"] == 1


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/%6aobs", "/v1/jobs?"])
def test_another_spelling_of_a_path_is_the_same_route(shared_api: ApiUnderTest, served: Served, path: str) -> None:
    """A trailing slash and encoded letters lead to the same guarded route."""
    client = shared_api.someone(EMITTER)
    answer = served.ask(_request("GET", path, client))
    assert _status(answer) == 403
    nobody = Client(shared_api, None, source="127.0.0.1")
    assert _status(served.ask(_request("GET", path, nobody))) == 401


@pytest.mark.parametrize(
    "path", ["//v1/jobs", "/v1//jobs", "//v1//jobs", "/v1%2fjobs", "/v1%2Fjobs", "/%2fv1/jobs", "//metrics"]
)
def test_a_slash_too_many_or_an_encoded_one_leads_nowhere(shared_api: ApiUnderTest, path: str) -> None:
    """Such a path is another one: 404 with and without a credential, on no record, as proxies before would route it."""
    for client in (shared_api.someone(), Client(shared_api, None)):
        with shared_api.leaves():
            problem_of(client.get(f"http://auditrace.test{path}"), 404, "not_found")


@on_both
def test_a_part_of_an_input_is_refused(shared_api: ApiUnderTest) -> None:
    """`Content-Range` on a PUT is 400 (RFC 9110, 14.5), recorded, and the part is not stored as the whole."""
    client = shared_api.someone()
    job = client.new_job()
    headers = {"Content-Range": "bytes 0-0/2"}
    problem, record = shared_api.refused(
        names.EVENT_INPUT_WRITE,
        400,
        "invalid_request",
        lambda: client.put(f"/v1/jobs/{job['id']}/inputs/a", b"x", headers=headers),
    )
    assert "Content-Range" in problem["detail"]
    assert record.target == ("job", job["id"])
    assert shared_api.store.reads.inputs(job["id"]) == []


@on_both
def test_a_packed_input_is_refused(shared_api: ApiUnderTest) -> None:
    """`Content-Encoding` is 415 (RFC 9110, 8.4), recorded, and what is packed is not stored as what it holds."""
    client = shared_api.someone()
    job = client.new_job()
    problem, record = shared_api.refused(
        names.EVENT_INPUT_WRITE,
        415,
        "unsupported_media_type",
        lambda: client.put(f"/v1/jobs/{job['id']}/inputs/a", gzip.compress(b"x"), headers={"Content-Encoding": "gzip"}),
    )
    assert "Content-Encoding" in problem["detail"]
    assert record.target == ("job", job["id"])
    assert shared_api.store.reads.inputs(job["id"]) == []
    kept = client.put(f"/v1/jobs/{job['id']}/inputs/a", b"x", headers={"Content-Encoding": "identity"})
    assert kept.status_code == 200


@on_both
@pytest.mark.parametrize(
    "name",
    [b"sub/../../a", b"../inputs/a", b"a%00", b"%c0%ae%c0%ae%2fa", b"a;b", b"a?b", b"a#b", b"\xc3\xa9", b"a%", b"%zz"],
)
def test_tricks_with_names_reach_the_service_as_they_were_sent(
    shared_api: ApiUnderTest, served: Served, name: bytes
) -> None:
    """No name is tidied up on its way into one that would be taken; nothing is stored under another name."""
    client = shared_api.someone()
    job = client.new_job()
    request = _request("PUT", f"/v1/jobs/{job['id']}/inputs/", client, b"x").replace(b"/inputs/", b"/inputs/" + name, 1)
    assert _status(served.ask(request)) == 400
    stored = [content.name for content in shared_api.store.reads.inputs(job["id"])]
    assert stored == []


def test_a_body_in_pieces_is_one_body(shared_api: ApiUnderTest, served: Served) -> None:
    """A chunked body without a length is read to its end."""
    client = shared_api.someone()
    chunked = b"".join(b"%x\r\n%s\r\n" % (1, BODY[at : at + 1]) for at in range(len(BODY))) + b"0\r\n\r\n"
    head = _head("POST", "/v1/jobs", client, "Transfer-Encoding: chunked", "Content-Type: application/json")
    assert _status(served.ask(head + chunked)) == 201


def test_a_body_without_a_length_ends_at_the_limit(shared_api: ApiUnderTest, served: Served) -> None:
    """A chunked body that goes on beyond the limit is 413, recorded, before all of it was read."""
    client = shared_api.someone()
    head = _head("POST", "/v1/jobs", client, "Transfer-Encoding: chunked", "Content-Type: application/json")
    piece = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
    with shared_api.leaves(names.EVENT_JOB_CREATE) as left, served.connect() as connection:
        connection.sendall(head + piece * 17)
        assert b" 413 " in connection.recv(65536).partition(b"\r\n")[0]
    assert left[0].result == "rejected"


def test_a_large_body_is_refused_before_it_is_sent(shared_api: ApiUnderTest, served: Served) -> None:
    """With `Expect: 100-continue` a stated length beyond the limit, or a bad credential, is answered at once."""
    client = shared_api.someone()
    length, expect = "Content-Length: 2000000", "Expect: 100-continue"
    assert _status(served.ask(_head("POST", "/v1/jobs", client, length, expect))) == 413
    nobody = Client(shared_api, "atk_x_y")
    assert _status(served.ask(_head("POST", "/v1/jobs", nobody, length, expect))) == 401


def test_a_client_that_asks_first_is_told_to_go_on(shared_api: ApiUnderTest, served: Served) -> None:
    """With `Expect: 100-continue` an acceptable request is told to continue, and then answered."""
    client = shared_api.someone()
    with served.connect() as connection:
        length = f"Content-Length: {len(BODY)}"
        connection.sendall(
            _head("POST", "/v1/jobs", client, length, "Expect: 100-continue", "Content-Type: application/json")
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert _status(read_to_end(connection)) == 201


@on_both
def test_a_client_that_hangs_up_cancels_nothing(shared_api: ApiUnderTest, served: Served) -> None:
    """What was handed to the ledger is carried out and recorded, though nobody waits for the answer any more."""
    client = shared_api.someone()
    with shared_api.held() as release, served.connect() as connection:
        connection.sendall(_request("POST", "/v1/jobs", client, BODY))
        poll_until(lambda: shared_api.waiting > 0, "the request to reach the lane")
        connection.close()
        release()
    poll_until(lambda: bool(shared_api.records(actor_id=client.name)), "the record of the job")
    assert [(record.row.event_name, record.result) for record in shared_api.records(actor_id=client.name)] == [
        (names.EVENT_JOB_CREATE, "success")
    ]
    assert len(client.get("/v1/jobs?created_by=" + client.name).json()["jobs"]) == 1


@on_both
def test_half_a_request_does_nothing_and_is_recorded(shared_api: ApiUnderTest, served: Served) -> None:
    """A client that hangs up within its body has asked for nothing; the attempt is on record as refused."""
    client = shared_api.someone()
    with served.connect() as connection:
        connection.sendall(_request("POST", "/v1/jobs", client, BODY)[:-5])
    poll_until(lambda: bool(shared_api.records(actor_id=client.name)), "the record of the attempt")
    (record,) = shared_api.records(actor_id=client.name)
    assert (record.row.event_name, record.result) == (names.EVENT_JOB_CREATE, "rejected")
    assert "hung up" in record[names.AUDITRACE_REASON]
    assert client.get("/v1/jobs?created_by=" + client.name).json()["jobs"] == []


def test_a_connection_goes_on_after_a_refusal(shared_api: ApiUnderTest, served: Served) -> None:
    """A refused request, its body unread, does not garble the next one on the same connection."""
    client = shared_api.someone()
    refused = _request("PUT", "/v1/jobs/nothing/inputs/a", client, b"GET /v1/jobs HTTP/1.1\r\n\r\n" * 99, keep=True)
    answer = served.ask(refused + _request("GET", "/health/live", client))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"404", b"200"]


@on_both
def test_an_export_that_breaks_off_does_not_look_complete(
    shared_api: ApiUnderTest, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the ledger cannot be read to the end, the answer ends without the last chunk that HTTP asks for."""
    client = shared_api.someone()
    reads, fail = shared_api.store.reads, False
    stored = reads.stored

    def failing(where: RecordFilter, cursor: str | None, limit: int) -> Page[StoredRecord]:
        if fail and cursor is not None:
            raise LedgerUnavailableError("the disk is gone")
        return stored(where, cursor, limit)

    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(reads, "stored", failing)
    request = _request("GET", "/v1/audit/export?format=jsonl", client)
    assert served.ask(request).endswith(b"\r\n0\r\n\r\n")
    fail = True
    answer = served.ask(request)
    assert _status(answer) == 200
    assert b'"event_name":"audit.stream.open"' in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_doubled_request_id_is_replaced(shared_api: ApiUnderTest) -> None:
    """Two request ids are none: which one would be meant cannot be known."""
    client = shared_api.someone()
    head = [("Authorization", f"Bearer {client.token}"), ("X-Request-Id", "one"), ("X-Request-Id", "two")]
    answer = client.send("GET", "/v1/jobs", head)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] not in {"one", "two", "one, two"}


def test_the_answer_of_a_refusal_names_one_content_type(shared_api: ApiUnderTest, served: Served) -> None:
    """Problems are problems whatever the client says that it accepts."""
    client = shared_api.someone()
    answer = client.get("/v1/jobs/none", headers={"Accept": "text/html"})
    problem_of(answer, 404, "not_found")


JSON = "application/json"
CONTENT_TYPES = {
    "/v1/jobs": JSON,
    "/v1/jobs/{id}": JSON,
    "/v1/jobs/{id}/runs": JSON,
    "/v1/jobs/{id}/runs/1/artifacts": JSON,
    "/v1/jobs/{id}/runs/1/artifacts/page.html": "application/octet-stream",
    "/v1/audit/records": JSON,
    "/v1/audit/export": "application/x-ndjson",
    "/v1/audit/export?format=jsonl": "application/x-ndjson",
    "/v1/audit/export?format=csv": "text/csv; header=present; charset=utf-8",
    "/v1/jobs?limit=0": "application/problem+json",
    "/nothing": "application/problem+json",
    "/health/live": JSON,
    "/health/ready": JSON,
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    "/schema": "application/vnd.oai.openapi+json;version=3.1",
    "/": "text/html; charset=utf-8",
    "/explorer.js": "text/javascript; charset=utf-8",
    "/explorer.css": "text/css; charset=utf-8",
}


@pytest.mark.parametrize("path", CONTENT_TYPES)
def test_every_answer_says_once_what_it_is(shared_api: ApiUnderTest, path: str) -> None:
    """Texts name their charset once; JSON is UTF-8 and has no such parameter (RFC 8259, 8.1, 11); bytes have none."""
    client = shared_api.someone()
    job = client.finished_job(artifacts={"page.html": b"x"})
    answer = client.get(path.replace("{id}", job["id"]))
    assert answer.headers.get_list("content-type") == [CONTENT_TYPES[path]]
    answer.content.decode("utf-8")


def _head(method: str, target: str, client: Client, *headers: str, keep: bool = False) -> bytes:
    credential = [f"Authorization: Bearer {client.token}"] if client.token else []
    closing = [] if keep else ["Connection: close"]
    lines = [f"{method} {target} HTTP/1.1", "Host: auditrace.test", *credential, *closing, *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def _request(method: str, target: str, client: Client, body: bytes = b"", *, keep: bool = False) -> bytes:
    described = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    return _head(method, target, client, *described, keep=keep) + body


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
