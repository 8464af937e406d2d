"""A backend for tests, which decode the requests that arrived and script how it fails.

Speaks OTLP/HTTP with protobuf bodies (plain or compressed) and OTLP/gRPC, on loopback, in threads of the process.
"""

import gzip
import os
import socket
import ssl
import struct
import sys
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import zstandard

from tests.support.otlp_messages import (
    TYPE_OF_PATH,
    TYPE_OF_SERVICE,
    Message,
    ReceivedLog,
    ReceivedMetric,
    ReceivedSpan,
    Response,
    log_records_of,
    metrics_of,
    response_to,
    spans_of,
)
from tests.support.ports import ReservedPorts

DECOMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstandard.ZstdDecompressor().decompress,
}
"""By what a body is undone; one that is not compressed stays as it is."""

GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
}
"""What a scripted HTTP status becomes on gRPC; every other one is UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class Request:
    """One export request as it arrived."""

    number: int
    """From 1, over all paths."""
    message: Message
    headers: Mapping[str, str]
    """Names in lower case; binary ones of gRPC as base64. The answer's are ignored on gRPC."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sink does with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """None: the signal's own response message on 200, else nothing. Only HTTP."""
    rejected: int = 0
    """Count for `partial_success`; with a message of its own when positive."""
    hang: bool = False
    """Say nothing until the sink stops."""
    reset: bool = False
    """Close the connection with a TCP reset instead of an answer (UNAVAILABLE on gRPC)."""
    stored: bool | None = None
    """Whether the sink keeps the request; None: only when it answers 200."""

    @property
    def is_kept(self) -> bool:
        """Whether the request counts as received."""
        return self.status == 200 and not (self.hang or self.reset) if self.stored is None else self.stored


class OtlpSink:
    """A backend that remembers every request it kept, over stops and starts.

    Args:
        script: Decides each answer, called from the serving threads; without one every answer is `answer`.
        tls: Certificate and key, to speak HTTPS; gRPC stays plain.
    """

    def __init__(self, script: Callable[[Request], Answer] | None = None, tls: tuple[Path, Path] | None = None) -> None:
        self.script = script
        self.answer = Answer()
        """For every request while there is no script; a test may replace it at any time."""
        self._tls = tls
        self._lock = threading.Lock()
        self._kept: list[Message] = []
        self._count = 0
        self._reserved = ReservedPorts(2)
        self._http_port, self._grpc_port = self._reserved.numbers

    @property
    def http_endpoint(self) -> str:
        """OTLP/HTTP base URL, as `AUDIT_LOGS_ENDPOINT` and `LOGS_ENDPOINT` take it."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._http_port}"

    @property
    def grpc_endpoint(self) -> str:
        """OTLP/gRPC `host:port`, as `TRACES_ENDPOINT` and `JAEGER_ENDPOINT` take it."""
        return f"127.0.0.1:{self._grpc_port}"

    @property
    def request_count(self) -> int:
        """How many requests arrived, kept or not."""
        with self._lock:
            return self._count

    @property
    def kept_count(self) -> int:
        """How many requests were kept."""
        return len(self._messages())

    def spans(self) -> list[ReceivedSpan]:
        """Returns the spans of all kept requests, in order of arrival."""
        return spans_of(self._messages())

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Returns the spans of one trace, its id in hex, in order of arrival; empty when the trace never came."""
        return [each for each in self.spans() if each.span.trace_id.hex() == trace_id]

    def log_records(self) -> list[ReceivedLog]:
        """Returns the log records of all kept requests, in order of arrival."""
        return log_records_of(self._messages())

    def metrics(self) -> list[ReceivedMetric]:
        """Returns the metrics of all kept requests, in order of arrival."""
        return metrics_of(self._messages())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listens, on the same ports as before if it was stopped."""
        self.stopping = threading.Event()
        self._http = _HttpServer(("127.0.0.1", self._http_port), self)
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self._grpc = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers([_grpc_handler(self, name, kind) for name, kind in TYPE_OF_SERVICE.items()])
        self._grpc.add_insecure_port(self.grpc_endpoint)
        self._grpc.start()

    def stop(self) -> None:
        """Stops listening and cuts every open connection, as a backend that went away."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.cut_connections()
        self._grpc.stop(None).wait()

    def receive(self, message: Message, headers: Mapping[str, str]) -> Answer:
        """Counts a request, asks the script and keeps the message if the answer says so."""
        with self._lock:
            self._count += 1
            number = self._count
        answer = self.script(Request(number, message, headers)) if self.script else self.answer
        if answer.is_kept:
            with self._lock:
                self._kept.append(message)
        return answer

    def _messages(self) -> list[Message]:
        with self._lock:
            return list(self._kept)

    def receive_grpc(self, message: Message, context: grpc.ServicerContext) -> Answer:
        """Receives as `receive` does, and ends the call when the answer is no success."""
        metadata = context.invocation_metadata() or ()
        headers = {name: value if isinstance(value, str) else b64encode(value).decode() for name, value in metadata}
        answer = self.receive(message, headers)
        if answer.hang:
            self.stopping.wait()
        if answer.status != 200 or answer.hang or answer.reset:
            context.abort(GRPC_CODES.get(answer.status, grpc.StatusCode.UNAVAILABLE), "refused by the test")
        return answer


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], sink: OtlpSink) -> None:
        self.sink = sink
        self._open: set[socket.socket] = set()
        super().__init__(address, _HttpHandler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, peer = super().get_request()
        self._open.add(connection)
        return connection, peer

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Tests kill clients and cut connections.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        # A kept-alive connection would go on being served after the listener is closed.
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            # The sender died. An empty body would be read as an empty message.
            self.close_connection = True
            return None
        kind = TYPE_OF_PATH.get(self.path)
        if kind is None:
            return self._reply(404, {}, b"")
        if self.headers.get("content-type") != "application/x-protobuf":
            return self._reply(415, {}, b"")
        body = DECOMPRESSED.get(self.headers.get("content-encoding", ""), bytes)(body)
        message = kind.FromString(body)
        answer = self.server.sink.receive(message, {name.lower(): value for name, value in self.headers.items()})
        if answer.hang:
            self.server.sink.stopping.wait()
            self.close_connection = True
            return None
        if answer.reset:
            return self._reset()
        reply = answer.body
        if reply is None:
            reply = response_to(message, answer.rejected).SerializeToString() if answer.status == 200 else b""
        return self._reply(answer.status, {"Content-Type": "application/x-protobuf", **answer.headers}, reply)

    def _reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        # Linger zero makes close send RST; detached, because the streams over the socket would delay the close.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Writes nothing: it would be mixed with the output of the test."""


def _grpc_handler(sink: OtlpSink, service: str, kind: type[Message]) -> grpc.GenericRpcHandler:
    def export(request: Message, context: grpc.ServicerContext) -> Response:
        return response_to(request, sink.receive_grpc(request, context).rejected)

    method = grpc.unary_unary_rpc_method_handler(
        export, request_deserializer=kind.FromString, response_serializer=lambda response: response.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(service, {"Export": method})
