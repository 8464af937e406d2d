"""How requests travel over HTTP: with the headers asked for, on one connection, by secrets that may change."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from trustme import CA

from telemetry.delivery import open_sink
from telemetry.delivery.answers import Accepted, Refused, Unreachable
from telemetry.delivery.settings import sink_settings
from telemetry.errors import TelemetrySettingsError
from tests.support.certificates import issue, replace, write
from tests.support.deliveries import sink_to, wall_clock
from tests.support.otlp_sink import Answer, OtlpSink, Request

REQUEST = ExportLogsServiceRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(event_name="job.create")] * 50)])]
).SerializeToString()


def _seen(server: OtlpSink) -> list[Request]:
    seen: list[Request] = []

    def script(request: Request) -> Answer:
        seen.append(request)
        return Answer()

    server.script = script
    return seen


def test_the_standard_headers_are_sent(server: OtlpSink) -> None:
    """Those of OTEL_EXPORTER_OTLP_HEADERS, decoded, with the media type of OTLP."""
    seen = _seen(server)
    sink = sink_to(server, "http", OTEL_EXPORTER_OTLP_HEADERS="X-Scope-OrgID=audit%20one,authorization=Basic%20Zm9v")
    assert sink.send(REQUEST) == Accepted()
    headers = seen[0].headers
    assert headers["x-scope-orgid"] == "audit one"
    assert headers["authorization"] == "Basic Zm9v"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["user-agent"] == "auditrace"


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate", "zstd"])
def test_the_body_is_compressed_as_asked(server: OtlpSink, compression: str) -> None:
    """By OTEL_EXPORTER_OTLP_COMPRESSION, and named in the header, so that the sink gets the same bytes."""
    seen = _seen(server)
    assert sink_to(server, "http", OTEL_EXPORTER_OTLP_COMPRESSION=compression).send(REQUEST) == Accepted()
    assert seen[0].message.SerializeToString() == REQUEST
    headers = seen[0].headers
    assert headers.get("content-encoding") == (None if compression == "none" else compression)
    assert (int(headers["content-length"]) < len(REQUEST) / 2) == (compression != "none")


def test_the_connection_is_kept(server: OtlpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many requests, refused ones included, take one connection."""
    accepted: list[object] = []
    get_request = server._http.get_request

    def count() -> tuple[object, object]:
        connection = get_request()
        accepted.append(connection)
        return connection

    monkeypatch.setattr(server._http, "get_request", count)
    sink = sink_to(server, "http")
    server.script = lambda request: Answer(status=503, body=b"busy") if request.number % 2 else Answer()
    for _ in range(10):
        sink.send(REQUEST)
    assert len(accepted) == 1


def test_a_redirect_is_not_followed(server: OtlpSink) -> None:
    """Records and their credentials go where they were meant to go, or nowhere."""
    with OtlpSink() as elsewhere:
        location = {"Location": f"{elsewhere.http_endpoint}/v1/logs"}
        for status in (301, 302, 307, 308):
            server.script = lambda _, status=status: Answer(status=status, headers=location)
            answer = sink_to(server, "http").send(REQUEST)
            assert isinstance(answer, Refused)
            assert answer.status == status
        assert elsewhere.request_count == 0


def test_an_answer_that_does_not_end_is_no_answer(server: OtlpSink) -> None:
    """A body that is larger than any OTLP response is not read to its end."""
    server.script = lambda _: Answer(body=bytes(3_000_000))
    answer = sink_to(server, "http").send(REQUEST)
    assert isinstance(answer, Refused)
    assert "does not end" in answer.message


def test_a_port_for_grpc_is_told_with_what_to_write(server: OtlpSink) -> None:
    """Who names the port for gRPC with http:// reads how it is written, beside what the library says."""
    address = server.grpc_endpoint.removeprefix("http://")
    settings = sink_settings({}, f"http://{address}/v1/logs")
    assert settings is not None
    answer = open_sink(settings, wall_clock).send(REQUEST)
    assert isinstance(answer, Unreachable)
    assert f"write grpc://{address} where it is a port for gRPC" in answer.message


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("scheme", "first", "then"),
    [
        ("http", HEAD, b"X-Anything: x\r\n"),
        ("http", b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (
            "http",
            HEAD + b"Content-Encoding: gzip\r\nContent-Length: 99999\r\n\r\n\x1f\x8b\x08\x08" + b"\0" * 6,
            b"name",
        ),
        ("https", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\x03"),
    ],
    ids=["head", "interim answers", "packed body", "handshake"],
)
def test_a_peer_that_sends_a_little_again_and_again_is_not_waited_for_without_end(
    scheme: str, first: bytes, then: bytes
) -> None:
    """No single read takes long, and there is no answer: the relay would hold its records, and say nothing of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_drip, args=[listener, first, then], daemon=True).start()
        endpoint = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/v1/logs"
        settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}, endpoint)
        assert settings is not None
        sink = open_sink(settings, wall_clock)
        answers: list[object] = []
        sending = threading.Thread(target=lambda: answers.append(sink.send(REQUEST)), daemon=True)
        sending.start()
        sending.join(60)
    assert answers, "still waiting"
    assert isinstance(answers[0], Unreachable | Refused)
    sink.close()


def _drip(listener: socket.socket, first: bytes, then: bytes) -> None:
    with suppress(OSError):
        peer, _ = listener.accept()
        with peer:
            peer.recv(1 << 20)
            peer.sendall(first)
            while True:
                peer.sendall(then)
                threading.Event().wait(0.05)


def test_a_token_is_read_again_when_its_file_changes(server: OtlpSink, tmp_path: Path) -> None:
    """Whoever rotates it need not restart anything; a file that is missing for a moment changes nothing."""
    seen = _seen(server)
    token = tmp_path / "token"
    replace(token, b"first\n")
    settings = sink_settings({}, f"{server.http_endpoint}/v1/logs", token)
    assert settings is not None
    sink = open_sink(settings, wall_clock)
    sink.send(REQUEST)
    token.unlink()
    sink.send(REQUEST)
    replace(token, b"second\n")
    sink.send(REQUEST)
    sink.send(REQUEST)
    sent = [request.headers["authorization"] for request in seen]
    assert sent == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]


def test_a_token_wins_over_a_header(server: OtlpSink, tmp_path: Path) -> None:
    """The more specific setting is the one that counts, and only one credential is sent."""
    seen = _seen(server)
    replace(tmp_path / "token", b"secret")
    environment = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20general"}
    settings = sink_settings(environment, f"{server.http_endpoint}/v1/logs", tmp_path / "token")
    assert settings is not None
    open_sink(settings, wall_clock).send(REQUEST)
    assert seen[0].headers["authorization"] == "Bearer secret"


def test_certificates_are_read_again_when_they_change(tmp_path: Path) -> None:
    """An authority that was wrong at first is replaced in its file, and the next request is trusted."""
    servers, strangers = CA(), CA()
    certificate, key = write(issue(servers), tmp_path, "sink")
    trusted = tmp_path / "trusted.crt"
    replace(trusted, strangers.cert_pem.bytes())
    with OtlpSink(tls=(certificate, key)) as server:
        settings = sink_settings({"OTEL_EXPORTER_OTLP_CERTIFICATE": str(trusted)}, f"{server.http_endpoint}/v1/logs")
        assert settings is not None
        sink = open_sink(settings, wall_clock)
        answer = sink.send(REQUEST)
        assert isinstance(answer, Unreachable)
        assert "certificate verify failed" in answer.message.lower()
        replace(trusted, b"-----BEGIN CERTIFICATE-----\nhalf of")
        assert isinstance(sink.send(REQUEST), Unreachable)
        replace(trusted, servers.cert_pem.bytes())
        assert sink.send(REQUEST) == Accepted()


def test_files_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    """A broken certificate is a mistake in the settings, said before anything is sent."""
    replace(tmp_path / "broken.crt", b"no certificate")
    settings = sink_settings(
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "broken.crt")}, "https://localhost:4328/v1/logs"
    )
    assert settings is not None
    with pytest.raises(TelemetrySettingsError, match="files for https://localhost:4328/v1/logs cannot be used"):
        open_sink(settings, wall_clock)
