"""Ends a request that takes too long as a whole: the timeouts of httpx are those of one connect, write or read each.

A peer that sends a byte of a head now and then would otherwise be waited for without end. A handshake of TLS has one
timeout as a whole already.

Source: https://www.python-httpx.org/advanced/extensions/, "trace".
"""

import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


class Limited:
    """Watches the requests of one client, which are made one after the other on one connection."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @contextmanager
    def request(self) -> Generator[threading.Event]:
        """Shut the connection down if the block takes longer than it may; yield an event that says that it did.

        Whatever the block reads or writes fails then.
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
        """Take note of the connection: the extension `trace` of a request."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._socket = details["return_value"].get_extra_info("socket")

    def _shut_down(self, is_over: threading.Event) -> None:
        is_over.set()
        # It may be closed by now, by this side or the other. Without TLS's own goodbye, which would wait.
        with self._lock, suppress(OSError):
            if self._socket is not None:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
