"""Limits how many clients may be connected and how long they may take to send a request.

A process without free file descriptors cannot start runs, and asyncio then logs each connection that it fails to
accept, thousands a second. So the limit is lower, and a client above it gets 503 with `Retry-After`.
"""

import asyncio
import resource
from typing import Final, cast

from service.processes.wire import StrictProtocol

HEAD_S: Final = 30.0
IDLE_S: Final = 75
"""How long a connection between two requests is kept: longer than clients (5 s) and load balancers (60 s) keep theirs.

The client must close first. Otherwise its next request may meet a connection that the server is just closing.
"""
ACCEPTED_AT_ONCE: Final = 32
"""asyncio accepts so many connections at a time, and a multiple of that before it closes one that is refused."""

_FILES: Final = 8192
# For the database, delivery and runs, and for connections that are accepted to be refused.
_RESERVED_FILES: Final = 128 + 8 * ACCEPTED_AT_ONCE
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def allowed_connections() -> int:
    """Raise this process's limit of open files as far as allowed and useful; return how many clients may connect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        soft = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - _RESERVED_FILES, soft // 2)


def bounded(max_connections: int, head_s: float = HEAD_S) -> type[StrictProtocol]:
    """Return a protocol for at most so many connections; each has `head_s` seconds to send the head of a request.

    Body and answer have no limit of time: a request in progress is never cut off.
    """

    class BoundedProtocol(StrictProtocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Take the connection, or answer that there are too many."""
            super().connection_made(cast("asyncio.Transport", transport))
            if len(self.connections) > max_connections:
                self.transport.write(_BUSY)
                self.transport.close()
            else:
                self._watch_head()

        def data_received(self, data: bytes) -> None:
            """Take what the client sent."""
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._stop_watching()
            super().connection_lost(exc)

        def _watch_head(self) -> None:
            if self.cycle and not self.cycle.response_complete:
                self._stop_watching()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(head_s, self.transport.close)

        def _stop_watching(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedProtocol
