"""Ends a request that takes too long as a whole. A timeout of httpx limits a single connect, write or read only.

Without this, the client would wait without end for a peer that sends one byte of its answer from time to time. The
handshake of TLS already has one timeout as a whole.

Source: https://www.python-httpx.org/advanced/extensions/, "trace".
"""

import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


class Limited:
    """Limits the requests of one client, which sends them one after the other on one connection."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @contextmanager
    def request(self) -> Generator[threading.Event]:
        """Shut the connection down when the block takes longer than `longest_s`; then the yielded event is set.

        Every read or write of the block fails then.
        """
        is_over = threading.Event()
        timer = threading.Timer(self._longest_s, self._shut_down, [is_over])
        timer.daemon = True
        timer.start()
        try:
            yield is_over
        finally:
            timer.cancel()

    def trace(self, event: str, details: Mapping[str, Any]) -> None:
        """Remember the socket of the connection. This is the extension `trace` of a request."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._socket = details["return_value"].get_extra_info("socket")

    def _shut_down(self, is_over: threading.Event) -> None:
        is_over.set()
        # Either side may have closed it already. The close message of TLS is left out, because sending it could block.
        with self._lock, suppress(OSError):
            if self._socket is not None:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
