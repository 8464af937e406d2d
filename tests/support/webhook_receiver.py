"""A receiver of webhooks for tests: it verifies signatures with the standard's library, and scripts how it fails."""

import json
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook

from tests.support.ports import ReservedPorts

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMu"
OTHER_SECRET = "whsec_" + "YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3RzISEh"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived."""

    number: int
    """From 1."""
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    payload: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The id by which repetitions are known."""
        return self.headers["webhook-id"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the receiver does with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    """Say nothing until the receiver stops."""
    reset: bool = False
    """Close the connection with a TCP reset instead of an answer."""
    endless: bool = False
    """Send a body that never ends."""
    kept: bool | None = None
    """Whether the receiver keeps what came; None: only when the status is 2xx."""

    @property
    def is_kept(self) -> bool:
        """Whether the request counts as received."""
        return 200 <= self.status < 300 and not (self.hang or self.reset) if self.kept is None else self.kept


class WebhookReceiver:
    """Remembers every webhook that it kept, over stops and starts on the same port.

    Args:
        script: Decides each answer, called from the serving threads; without one every answer is `reply`.
        tls: Certificate and key, to speak HTTPS.
        secret: What signatures are verified with; a request without a valid one gets 401 and is in `unsigned`.
    """

    def __init__(
        self,
        script: Callable[[Arrival], Reply] | None = None,
        tls: tuple[Path, Path] | None = None,
        secret: str = SECRET,
    ) -> None:
        self.script = script
        self.reply = Reply()
        self.secret = secret
        self.unsigned = 0
        self.connections = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._kept: list[Arrival] = []
        self._count = 0
        self._reserved = ReservedPorts(1)
        (self.port,) = self._reserved.numbers

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"

    @property
    def request_count(self) -> int:
        """How many signed requests arrived, kept or not."""
        with self._lock:
            return self._count

    def kept(self) -> list[Arrival]:
        """Return what was kept, in order of arrival."""
        with self._lock:
            return list(self._kept)

    def first_arrivals(self) -> list[tuple[str, int, str]]:
        """Return stream, number and id of what was kept, in order of arrival, without repetitions.

        Raises:
            AssertionError: a repetition is not identical.
        """
        found: dict[str, Arrival] = {}
        for each in self.kept():
            assert found.setdefault(each.id, each).body == each.body
        return [
            (str(each.payload["data"]["stream_id"]), int(each.payload["data"]["sequence_number"]), each.id)
            for each in found.values()
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before if it was stopped."""
        self.stopping = threading.Event()
        self._http = _Server(("127.0.0.1", self.port), self)
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._http.tls = context
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and cut every open connection; may be called again."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.cut_connections()

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Verify a request, ask the script, and keep the request if the answer says so."""
        try:
            Webhook(self.secret).verify(body, dict(headers))
        except Exception:  # noqa: BLE001 - whatever the library raises, it is no valid signature
            self.unsigned += 1
            return Reply(401)
        with self._lock:
            self._count += 1
            number = self._count
        webhook = Arrival(number, path, headers, body, json.loads(body))
        reply = self.script(webhook) if self.script else self.reply
        if reply.is_kept:
            with self._lock:
                self._kept.append(webhook)
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    tls: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, peer = super().get_request()
        self.receiver.connections += 1
        self._open.add(connection)
        return connection, peer

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the thread of the connection, so that a client that refuses the certificate hurts nobody.
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
            self._open.add(request)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Tests kill clients, cut connections and refuse certificates.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut_connections(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.receiver.receive(self.path, headers, body)
        if reply.hang:
            self.server.receiver.stopping.wait()
            self.close_connection = True
        elif reply.reset:
            # Linger zero makes close send RST; detached, because the streams over the socket would delay the close.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            self.close_connection = True
        else:
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(1 << 40 if reply.endless else len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)
        while reply.endless and not self.server.receiver.stopping.is_set():
            self.wfile.write(b"x" * 65536)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Writes nothing: it would be mixed with the output of the test."""
