"""How requests travel over gRPC: with metadata and details that the sink understands, over connections that live."""

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import UNAVAILABLE
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from telemetry.delivery import open_sink
from telemetry.delivery.answers import Accepted, Refused, Sink, Unreachable, blames_records
from telemetry.delivery.grpc import EXPORT
from telemetry.delivery.settings import sink_settings
from tests.support.certificates import replace
from tests.support.deliveries import wall_clock
from tests.support.otlp_sink import OtlpSink

REQUEST = ExportLogsServiceRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(event_name="job.create")] * 50)])]
).SerializeToString()


class Scripted(grpc.GenericRpcHandler):
    """A server that answers each call as the test says, and remembers its metadata."""

    def __init__(self) -> None:
        self.code, self.details = grpc.StatusCode.OK, ""
        self.trailing: tuple[tuple[str, bytes], ...] = ()
        self.metadata: list[dict[str, str | bytes]] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Serve the one method of OTLP logs."""
        if handler_call_details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata.append(dict(context.invocation_metadata()))
        context.set_trailing_metadata(self.trailing)
        if self.code is not grpc.StatusCode.OK:
            context.abort(self.code, self.details)
        return b""


@contextmanager
def _serving(handler: Scripted) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _sink(endpoint: str, token_file: Path | None = None, **environment: str) -> Sink:
    settings = sink_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "20", **environment}, endpoint, token_file)
    assert settings is not None
    return open_sink(settings, wall_clock)


def test_headers_and_token_travel_as_metadata(tmp_path: Path) -> None:
    """Those of OTEL_EXPORTER_OTLP_HEADERS, and the token, read again when its file changes; one credential only."""
    handler, token = Scripted(), tmp_path / "token"
    replace(token, b"first\n")
    with _serving(handler) as endpoint:
        sink = _sink(endpoint, token, OTEL_EXPORTER_OTLP_HEADERS="X-Scope-OrgID=audit,authorization=Basic%20Zm9v")
        assert sink.send(REQUEST) == Accepted()
        replace(token, b"second\n")
        assert sink.send(REQUEST) == Accepted()
        sink.close()
    assert [seen["authorization"] for seen in handler.metadata] == ["Bearer first", "Bearer second"]
    assert handler.metadata[0]["x-scope-orgid"] == "audit"
    assert "auditrace" in handler.metadata[0]["user-agent"]


def test_a_binary_header_arrives_as_bytes() -> None:
    """Its value in the variable is base64, as over HTTP/2; gRPC would refuse it as text, with every request."""
    handler = Scripted()
    with _serving(handler) as endpoint:
        sink = _sink(endpoint, OTEL_EXPORTER_OTLP_HEADERS="tenant-bin=AQID/w==")
        assert sink.send(REQUEST) == Accepted()
        sink.close()
    assert handler.metadata[0]["tenant-bin"] == b"\x01\x02\x03\xff"


@pytest.mark.parametrize(
    ("code", "details", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "bad record", 400),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 4)", 413),
    ],
)
def test_what_may_be_about_a_record_is_told_apart(code: grpc.StatusCode, details: str, status: int) -> None:
    """The two refusals of gRPC that correspond to 400 and 413."""
    handler = Scripted()
    handler.code, handler.details = code, details
    with _serving(handler) as endpoint:
        answer = _sink(endpoint).send(REQUEST)
    assert isinstance(answer, Refused)
    assert (answer.status, answer.message) == (status, f"{code.name}: {details}")
    assert blames_records(answer)


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code not in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}],
    ids=lambda code: code.name,
)
def test_every_other_status_is_about_the_sink(code: grpc.StatusCode) -> None:
    """Whatever it means, no record is blamed for it."""
    handler = Scripted()
    handler.code, handler.details = code, "no"
    with _serving(handler) as endpoint:
        answer = _sink(endpoint).send(REQUEST)
    assert not isinstance(answer, Accepted)
    assert not blames_records(answer)
    assert code.name in str(answer)


def test_a_method_that_is_not_there_is_about_the_sink() -> None:
    """A gRPC server that does not speak OTLP."""

    class Silent(Scripted):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
            return None

    with _serving(Silent()) as endpoint:
        answer = _sink(endpoint).send(REQUEST)
    assert isinstance(answer, Refused)
    assert answer.status == 404
    assert not blames_records(answer)


@pytest.mark.parametrize(("delay", "seconds"), [(Duration(seconds=3, nanos=500_000_000), 3.5), (None, None)])
def test_retry_info_is_read(delay: Duration | None, seconds: float | None) -> None:
    """How long the sink wants to be left alone, from the details of the status."""
    handler = Scripted()
    handler.code, handler.details = grpc.StatusCode.UNAVAILABLE, "busy"
    if delay is not None:
        detail = Any()
        detail.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=UNAVAILABLE, message="busy", details=[detail])
        handler.trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    with _serving(handler) as endpoint:
        answer = _sink(endpoint).send(REQUEST)
    assert isinstance(answer, Refused)
    assert answer.retry_after_s == seconds


def test_a_connection_on_which_nobody_answers_is_given_up(server: OtlpSink) -> None:
    """After a call without an answer the next one is made on a connection of its own, not on the one that hangs."""
    with _proxy_that_hangs_once(server.grpc_endpoint) as endpoint:
        sink = _sink(f"grpc://{endpoint}", OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="1")
        answer = sink.send(REQUEST)
        assert isinstance(answer, Unreachable)
        assert answer.error_type == "timeout"
        assert sink.send(REQUEST) == Accepted()
        sink.close()


@contextmanager
def _proxy_that_hangs_once(target: str) -> Iterator[str]:
    """Take the first connection and say nothing on it; forward the second."""
    host, port = target.split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                silent, _ = listener.accept()
                near, _ = listener.accept()
                with silent, near, socket.create_connection((host, int(port))) as far:
                    while True:
                        for readable in select.select([near, far], [], [])[0]:
                            part = readable.recv(65536)
                            if not part:
                                return
                            (far if readable is near else near).sendall(part)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
