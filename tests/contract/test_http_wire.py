"""Requests byte by byte against `auditrace serve`: what is taken, what is refused, and what ends the connection.

The table is that of docs/adr/0022: each row is a request by an administrator that would be carried out if it were read
leniently. Behind each comes a second, sound request: it is answered when the connection goes on, and only then.
"""

import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest

from service.processes.wire import FIELDS, HEAD_BYTES, PIPELINED, TARGET_BYTES
from tests.support.poll_until import poll_until
from tests.support.served import read_to_end
from tests.support.service import Service

JSON: Final = b'{"template":"greet","parameters":{"name":"x"}}'
LENGTH: Final = b"Content-Length: %d" % len(JSON)
CHUNKED: Final = b"Transfer-Encoding: chunked"
CHUNK: Final = b"%x\r\n%s\r\n" % (len(JSON), JSON)
NEXT: Final = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LINE: Final = b"POST /v1/jobs HTTP/1.1"
HOST: Final = b"Host: a"
OFFER: Final = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")


def post(*fields: bytes, line: bytes = LINE, host: bytes = HOST, body: bytes = b"", end: bytes = b"\r\n") -> bytes:
    """Return a request to create a job; `KEY` stands for the administrator's key."""
    head = [line, *([host] if host else []), b"Authorization: Bearer KEY", b"Content-Type: application/json", *fields]
    return end.join([*head, b"", b""]) + body


def plain(*fields: bytes, line: bytes = LINE, host: bytes = HOST) -> bytes:
    """Return a request to create a job whose body has a length."""
    return post(*fields, LENGTH, line=line, host=host, body=JSON)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """Return a request to create a job whose body comes in chunks."""
    return post(CHUNKED, *fields, body=body)


def get(target: bytes, *fields: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    """Return a request without a body."""
    line = b" ".join([method, target, version])
    return b"\r\n".join([line, HOST, b"Authorization: Bearer KEY", *fields, b"", b""])


REFUSED: Final = {
    "a length beside a coding": post(LENGTH, CHUNKED, body=CHUNK + b"0\r\n\r\n"),
    "a coding beside a length": post(CHUNKED, LENGTH, body=CHUNK + b"0\r\n\r\n"),
    "two lengths": post(LENGTH, b"Content-Length: 1", body=JSON),
    "the same length twice": post(LENGTH, LENGTH, body=JSON),
    "a list of lengths": post(LENGTH + b", %d" % len(JSON), body=JSON),
    "a negative length": post(b"Content-Length: -1", body=JSON),
    "a length with a sign": post(b"Content-Length: +%d" % len(JSON), body=JSON),
    "a length in hexadecimal": post(b"Content-Length: 0x2e", body=JSON),
    "an empty length": post(b"Content-Length:", body=JSON),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999", body=JSON),
    "coding identity": post(b"Transfer-Encoding: identity", body=JSON),
    "coding xchunked": post(b"Transfer-Encoding: xchunked", body=CHUNK + b"0\r\n\r\n"),
    "coding gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNK + b"0\r\n\r\n"),
    "coding chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNK + b"0\r\n\r\n"),
    "coding chunked twice": post(CHUNKED, CHUNKED, body=CHUNK + b"0\r\n\r\n"),
    "coding identity, then chunked": post(b"Transfer-Encoding: identity", CHUNKED, body=CHUNK + b"0\r\n\r\n"),
    "an empty coding": post(b"Transfer-Encoding:", body=JSON),
    "a coding behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=CHUNK + b"0\r\n\r\n"),
    "a coding in HTTP/1.0": post(CHUNKED, line=b"POST /v1/jobs HTTP/1.0", body=CHUNK + b"0\r\n\r\n"),
    "bare line feeds": post(LENGTH, end=b"\n", body=JSON),
    "one bare line feed": plain(b"X: a\nY: b"),
    "a bare line feed ends the head": plain().replace(b"\r\n\r\n", b"\r\n\n"),
    "a bare carriage return": plain(b"X: a\rY: b"),
    "a folded field": plain(b"X: a\r\n b"),
    "a folded field, by a tab": plain(b"X: a\r\n\tb"),
    "a fold before the first field": plain(line=LINE + b"\r\n X: a"),
    "HTTP/3.7": plain(line=b"POST /v1/jobs HTTP/3.7"),
    "HTTP/2.0": plain(line=b"POST /v1/jobs HTTP/2.0"),
    "HTTP/1.2": plain(line=b"POST /v1/jobs HTTP/1.2"),
    "HTTP/1.10": plain(line=b"POST /v1/jobs HTTP/1.10"),
    "HTTP/0.9": plain(line=b"POST /v1/jobs HTTP/0.9"),
    "http/1.1": plain(line=b"POST /v1/jobs http/1.1"),
    "no version": plain(line=b"POST /v1/jobs"),
    "a version of something else": plain(line=b"POST /v1/jobs BANANA"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a space before the colon": plain(b"X : a"),
    "a space before the colon of a length": post(b"Content-Length : %d" % len(JSON), body=JSON),
    "a tab before the colon": plain(b"X\t: a"),
    "a space in a name": plain(b"X Y: a"),
    "no name": plain(b": a"),
    "no colon": plain(b"X"),
    "NUL in a value": plain(b"X: a\x00b"),
    "NUL in a name": plain(b"X\x00: a"),
    "a control character in a value": plain(b"X: a\x01b"),
    "NUL in a target": plain(line=b"POST /v1/\x00jobs HTTP/1.1"),
    "bytes beyond ASCII in a target": plain(line=b"POST /v1/jobs\xe9 HTTP/1.1"),
    "tabs in the first line": plain(line=b"POST\t/v1/jobs\tHTTP/1.1"),
    "a space behind the version": plain(line=b"POST /v1/jobs HTTP/1.1 "),
    "no Host": plain(host=b""),
    "two Hosts": plain(HOST),
    "a fragment in a target": plain(line=b"POST /v1/jobs#x HTTP/1.1"),
    "a relative target": plain(line=b"POST v1/jobs HTTP/1.1"),
    "a target of another scheme": plain(line=b"POST ftp://a/v1/jobs HTTP/1.1"),
    "a target with a user": plain(line=b"POST http://b@a/v1/jobs HTTP/1.1"),
    "the target of a tunnel": get(b"a:443", method=b"CONNECT"),
    "a tunnel to a path": post(LENGTH, line=b"CONNECT /v1/jobs HTTP/1.1", body=JSON),
    "an unknown method": plain(line=b"BREW /v1/jobs HTTP/1.1"),
    "a method in small letters": plain(line=b"post /v1/jobs HTTP/1.1"),
}
"""Refused before the application is asked: 400, on no record."""

REFUSED_LATER: Final = {
    "a chunk size that is none": chunked(b"g\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a negative chunk size": chunked(b"-1\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x2e\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a chunk size with a sign": chunked(b"+2e\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a chunk size and a space": chunked(b"2e \r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": chunked(b"fffffffffffffffff\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "an empty chunk size": chunked(b"\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "a chunk longer than its size": chunked(b"1\r\n" + JSON + b"\r\n0\r\n\r\n"),
    "bare line feeds between chunks": chunked(CHUNK.replace(b"\r\n", b"\n") + b"0\n\n"),
    "a bare line feed in a chunk extension": chunked(CHUNK.replace(b"\r\n", b";a\nb\r\n", 1) + b"0\r\n\r\n"),
    "a trailer that is none": chunked(CHUNK + b"0\r\nX Y: a\r\n\r\n"),
}
"""Refused within the body, 400: the attempt of a known caller was begun, and is on record as rejected."""

JUST_TOO_LONG: Final = HEAD_BYTES + 1
TOO_LONG: Final = {
    "a field that does not end": post(b"X: ", body=b"")[:-4].ljust(JUST_TOO_LONG, b"x"),
    "too many fields": (LINE + b"\r\n" + b"X: a\r\n" * HEAD_BYTES)[:JUST_TOO_LONG],
}
"""Refused before the head has ended: 431."""

TAKEN: Final = {
    "a body with a length": (plain(), 201),
    "a body in chunks": (chunked(CHUNK + b"0\r\n\r\n"), 201),
    "a coding in capitals": (post(b"Transfer-Encoding: CHUNKED", body=CHUNK + b"0\r\n\r\n"), 201),
    "a chunk extension": (chunked(CHUNK.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n"), 201),
    "an absolute target": (plain(line=b"POST http://host/v1/jobs HTTP/1.1"), 201),
    "an absolute target with port and query": (get(b"https://host:444/v1/jobs?limit=1"), 200),
    "a refused query of an absolute target": (get(b"http://host/v1/jobs?limit=0"), 400),
    "another protocol offered": (get(b"/v1/jobs", *OFFER), 200),
    "another protocol offered with a body": (plain(*OFFER), 201),
    "another protocol offered with chunks": (chunked(CHUNK + b"0\r\n\r\n", *OFFER), 201),
    "a websocket asked for": (get(b"/v1/jobs", b"Connection: Upgrade", b"Upgrade: websocket"), 200),
    "an asterisk": (get(b"*", method=b"OPTIONS"), 404),
    "a doubled slash": (get(b"//v1/jobs"), 404),
    "an encoded slash": (get(b"/v1%2fjobs"), 404),
    "an encoded letter": (get(b"/v1/%6aobs"), 200),
    "an encoded NUL": (get(b"/v1/jobs%00"), 404),
    "percent and no digits": (get(b"/v1/jobs/%zz"), 404),
    "empty lines before the request": (b"\r\n\r\n" + get(b"/v1/jobs"), 200),
    "two spaces before the target": (get(b" /v1/jobs"), 200),
    "a field of Latin-1": (get(b"/v1/jobs", b"X: \xe9"), 200),
    "a Host that is none": (get(b"/v1/jobs").replace(b"Host: a", b"Host: a b"), 400),
    "an underscore for a hyphen": (plain(b"Transfer_Encoding: chunked"), 201),
    "a part of an input": (
        get(b"/v1/jobs/0/inputs/a", b"Content-Range: bytes 0-0/2", b"Content-Length: 0", method=b"PUT"),
        404,
    ),
}
"""Read by everybody in the same way: answered by the application, and the connection goes on."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that nothing but these requests reaches."""
    with Service(tmp_path_factory.mktemp("wire")) as running:
        yield running
        assert "Traceback" not in running.log.read_text(errors="replace")


def exchanged(service: Service, sent: bytes) -> list[int]:
    """Send these bytes at once, and return the statuses of all answers until the service closes the connection."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection, suppress(ConnectionError):
        connection.sendall(sent.replace(b"KEY", service.admin().encode()))
        answer = read_to_end(connection)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def state(service: Service) -> tuple[int, list[str]]:
    """Return how many jobs there are, and the results of what was tried on jobs."""
    rows = service.rows("SELECT body FROM audit_records WHERE event_name = 'job.create' ORDER BY observed_ns")
    results = [re.findall(r'"auditrace.result":"(\w+)"', str(body))[0] for (body,) in rows]
    return service.rows("SELECT count(*) FROM jobs")[0][0], results


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_and_the_end(service: Service, case: str) -> None:
    """400, the connection is closed, what came behind it is not looked at, and no state or record is left."""
    before = state(service)
    assert exchanged(service, REFUSED[case] + NEXT) == [400]
    assert state(service) == before


@pytest.mark.parametrize("case", REFUSED_LATER)
def test_a_body_that_cannot_be_read_does_nothing_and_is_the_end(service: Service, case: str) -> None:
    """400, the connection is closed, no job is made, and the attempt is on record as rejected."""
    jobs, results = state(service)
    assert exchanged(service, REFUSED_LATER[case] + NEXT) == [400]
    poll_until(lambda: len(state(service)[1]) > len(results), "the record of the attempt")
    assert state(service) == (jobs, [*results, "rejected"])


@pytest.mark.parametrize("case", TOO_LONG)
def test_a_head_that_is_too_long_is_refused_before_it_ends(service: Service, case: str) -> None:
    """431 and the end, at the first byte over the limit: nobody can make the service keep more than that."""
    before = state(service)
    assert exchanged(service, TOO_LONG[case]) == [431]
    assert state(service) == before


def test_a_head_within_the_limit_is_taken_and_one_byte_more_is_not(service: Service) -> None:
    """The limit counts names, values and target, so that it is the same however the head arrives."""
    fitting = get(b"/health/live", b"X: " + b"x" * (HEAD_BYTES - 512))
    assert exchanged(service, fitting + NEXT) == [200, 200]
    too_long = get(b"/health/live", *[b"X: " + b"x" * 1000] * 66)
    assert exchanged(service, too_long) in ([431], [])


def test_so_many_fields_are_taken_and_no_more(service: Service) -> None:
    """A hundred fields are a head, one more is 431: no program sends as many."""
    fields = [b"X: a"] * (FIELDS - 3)
    assert exchanged(service, get(b"/health/live", *fields) + NEXT) == [200, 200]
    assert exchanged(service, get(b"/health/live", *fields, *fields[:2]) + NEXT) == [431]


def test_a_target_is_taken_up_to_its_limit(service: Service) -> None:
    """A query with many values has room; a longer target is 414 before it ends, and the connection is closed."""
    before = state(service)
    longest = b"/health/live?".ljust(TARGET_BYTES, b"x")
    assert exchanged(service, get(longest) + NEXT) == [200, 200]
    assert exchanged(service, b"POST /".ljust(TARGET_BYTES + 20, b"x")) == [414]
    assert state(service) == before


def test_so_many_requests_wait_on_a_connection_and_no_more(service: Service) -> None:
    """Those that wait are answered in order; then the connection ends, and the rest was never looked at."""
    jobs, _ = state(service)
    answers = exchanged(service, plain() * 100)
    assert answers == [201] * (PIPELINED + 1)
    assert state(service)[0] == jobs + len(answers)


def test_what_comes_behind_a_body_is_bounded_too(service: Service) -> None:
    """A trailer without end is cut off: its attempt is rejected, and memory stays as it was."""
    jobs, results = state(service)
    endless = chunked(CHUNK + b"0\r\nX: " + b"x" * 1_000_000)
    assert exchanged(service, endless) in ([431], [])
    poll_until(lambda: len(state(service)[1]) > len(results), "the record of the attempt")
    assert state(service) == (jobs, [*results, "rejected"])


@pytest.mark.parametrize("case", TAKEN)
def test_what_everybody_reads_alike_is_answered_and_the_connection_goes_on(service: Service, case: str) -> None:
    """The application answers, never with 500, and the next request on the connection is answered too."""
    sent, status = TAKEN[case]
    assert exchanged(service, sent + NEXT) == [status, 200]


@pytest.mark.parametrize("name", [b"Idempotency-Key", b"Authorization", b"If-Match", b"X-Request-Id"])
def test_a_field_behind_the_body_is_no_header(service: Service, name: bytes) -> None:
    """Trailers decide nothing (RFC 9110, 6.5.1): not who calls, not what is done, not how it is called."""
    sent = chunked(CHUNK + b"0\r\n" + name + b": behind\r\n\r\n")
    assert exchanged(service, sent + NEXT) == [201, 200]
    body = str(service.rows("SELECT body FROM audit_records WHERE event_name = 'job.create' ORDER BY rowid DESC")[0][0])
    assert "behind" not in body
    assert "idempotency" not in body


def test_an_answer_under_way_is_never_mixed_with_a_refusal(service: Service) -> None:
    """What was asked before the garbage is carried out and answered; then the connection is closed without a word."""
    jobs, _ = state(service)
    assert exchanged(service, plain() + b"garbage\r\n\r\n" + NEXT) == [201]
    assert state(service)[0] == jobs + 1


def test_a_refusal_after_an_answer_is_an_answer_of_its_own(service: Service) -> None:
    """On a connection that waits for its next request, garbage is answered with 400 and the end."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(get(b"/health/live").replace(b"Authorization: Bearer KEY\r\n", b""))
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(65536)
        connection.sendall(b"garbage\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_an_old_client_is_answered_and_let_go(service: Service) -> None:
    """HTTP/1.0 is taken, also without a Host; the connection ends with the answer."""
    assert exchanged(service, b"GET /health/live HTTP/1.0\r\n\r\n" + NEXT) == [200]


def test_a_connection_outlives_the_pauses_of_its_client(service: Service) -> None:
    """Clients keep a connection for 5 s and more: the server is not the one that closes it between two requests."""
    _, _, place = service.url.partition("//")
    host, _, port = place.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            # Readable would be what is left of the answer, and then the end of the connection.
            poll_until(lambda: not select.select([connection], [], [], 6)[0] or not connection.recv(65536), "a pause")
