"""A server that sends exactly the bytes that a test scripts, however wrong they are."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Script = Callable[[socket.socket, threading.Event], None]
"""Answers one connection, whose request was read; the event is set when the server stops."""


class RawServer:
    """Accepts connections on a port of this machine, reads a request from each, and hands it to the script."""

    def __init__(self, script: Script) -> None:
        self.asked = 0
        """How many requests have come."""
        self._script = script
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        """The URL of this server."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/jwks"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        # Closing alone would not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._answer, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                part = connection.recv(65536)
                if not part:
                    return
                request += part
            self.asked += 1
            self._script(connection, self._stopped)


def answering(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    """Return a script that sends this answer."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""])
    return lambda connection, _: connection.sendall(head.encode() + body)


def dripping(first: bytes, drop: bytes = b" ") -> Script:
    """Return a script that sends the first bytes, and then one drop after the other without an end."""

    def drip(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(first)
        while not stopped.wait(0.02):
            connection.sendall(drop)

    return drip


def endless(connection: socket.socket, stopped: threading.Event) -> None:
    """Send a body without an end, as fast as it is read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not stopped.is_set():
        connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
