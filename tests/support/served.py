"""The API behind the real HTTP server, in this process, for tests that ASGI calls cannot make."""

import asyncio
import socket
from types import TracebackType
from typing import Self

import uvicorn

from service.processes.connections import ConnectionLimits, bounded
from tests.support.api import ApiUnderTest
from tests.support.poll_until import poll_until


class Served:
    """An API on a free port of loopback, asked with bytes."""

    def __init__(self, api: ApiUnderTest, limits: ConnectionLimits | None = None) -> None:
        self._api = api
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        config = uvicorn.Config(
            api.call,
            http=bounded(limits or ConnectionLimits(connections=1000)),
            ws="none",
            lifespan="off",
            log_config=None,
            server_header=False,
        )
        self._server = uvicorn.Server(config)

    def __enter__(self) -> Self:
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve([self._socket]), self._api.loop)
        poll_until(lambda: self._server.started, "the server to start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._serving.result(30)

    def connect(self) -> socket.socket:
        """Open a connection; what never comes fails the test instead of hanging it."""
        return socket.create_connection(self.address, timeout=30)

    def ask(self, request: bytes) -> bytes:
        """Send these bytes, and return all that comes back until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
