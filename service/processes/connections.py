"""Limits how many clients may be connected, and how long they may take to send a request and to read the answer.

A process without free file descriptors cannot start runs, and asyncio then logs each connection that it fails to
accept, thousands a second. So the limit is lower, and a client above it gets 503 with `Retry-After`. A source with too
many of these connections gets 429.
"""

import asyncio
import resource
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from service.processes.sources import IsTrusted, Sources
from service.processes.unsent import LEAST_RATE, SLOW_S, UNSENT_BYTES, UnsentAnswers, prepare
from service.processes.wire import StrictProtocol

HEAD_S: Final = 30.0
IDLE_S: Final = 75
"""How long a connection between two requests is kept: longer than clients (5 s) and load balancers (60 s) keep theirs.

The client must close first. Otherwise its next request may meet a connection that the server is just closing.
"""
ACCEPTED_AT_ONCE: Final = 32
"""asyncio accepts so many connections at a time, and a multiple of that before it closes one that is refused."""
READ_BYTES: Final = 72 * 1024
"""The most bytes that are read from a connection at a time: the requests in them are all in memory until an answer.

More than a head may have, because unread bytes would reset the connection before its refusal is read.
"""

_FILES: Final = 8192
# For the database, delivery and runs, and for connections that are accepted to be refused.
_RESERVED_FILES: Final = 128 + 8 * ACCEPTED_AT_ONCE
_END: Final = b"\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable" + _END
_TOO_MANY: Final = b"HTTP/1.1 429 Too Many Requests" + _END


def allowed_connections() -> int:
    """Raise this process's limit of open files as far as allowed and useful; return how many clients may connect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        soft = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - _RESERVED_FILES, soft // 2)


class _Reading(Protocol):
    max_size: int
    """What asyncio reads from the socket of a transport at a time."""


def _nobody(_address: str) -> bool:
    return False


def _uncounted(_reason: str) -> None:
    return


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the connections of a process.

    `of_one_source` None is half of `connections`. `count` is called with the reason whenever a limit refuses or ends a
    connection.
    """

    connections: int
    of_one_source: int | None = None
    is_trusted: IsTrusted = _nobody
    count: Callable[[str], None] = _uncounted
    head_s: float = HEAD_S
    slow_s: float = SLOW_S
    unsent_bytes: int = UNSENT_BYTES


def bounded(limits: ConnectionLimits) -> type[StrictProtocol]:
    """Return a protocol within these limits, for all connections of a process.

    Each connection has `head_s` seconds to send the head of a request. A body must come, and an answer must be taken,
    with at least `LEAST_RATE` bytes a second over `slow_s` seconds. The time that the service itself takes does not
    count.
    """
    sources = Sources(limits.of_one_source or max(1, limits.connections // 2), limits.is_trusted)
    unsent = UnsentAnswers(limits.slow_s, limits.unsent_bytes)

    class BoundedProtocol(StrictProtocol):
        _timer: asyncio.TimerHandle | None = None
        """Of the head, or of the body, which is awaited."""
        _is_for_body: bool = False
        _received = 0
        _was_held = False
        """Whether the service did not take what the client may have sent, within the time of the timer."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Take the connection, or answer that there are too many."""
            super().connection_made(cast("asyncio.Transport", transport))
            prepare(self.transport)
            # What is read ahead of the answers is parsed at once, so this bounds what pipelined requests hold.
            cast("_Reading", self.transport).max_size = READ_BYTES
            if not sources.add(self._address):
                self._turn_away(_TOO_MANY, "connections_of_source")
            elif len(self.connections) > limits.connections:
                self._turn_away(_BUSY, "connections")
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            """Take what the client sent."""
            self._received += len(data)
            super().data_received(data)
            self._watch()

        def pause_writing(self) -> None:
            """Note that bytes wait for the client."""
            super().pause_writing()
            unsent.watch(self.transport, self.ended)

        def resume_writing(self) -> None:
            """Note that no bytes wait for the client."""
            unsent.forget(self.transport)
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            sources.remove(self._address)
            unsent.forget(self.transport)
            self._stop_watching()
            super().connection_lost(exc)

        def ended(self, reason: str) -> None:
            """Count a connection that a limit refuses or ends."""
            limits.count(reason)

        @property
        def _address(self) -> str:
            return self.client[0] if self.client else ""

        def _turn_away(self, answer: bytes, reason: str) -> None:
            self.ended(reason)
            self.transport.write(answer)
            self.transport.close()

        def _watch(self) -> None:
            """Have a timer run while the client owes the rest of a head or of a body."""
            is_busy = bool(self.cycle) and not self.cycle.response_complete
            is_for_body: bool = is_busy and self._is_within
            if self._timer is not None and (is_for_body != self._is_for_body or (is_busy and not is_for_body)):
                self._stop_watching()
            self._was_held = self._was_held or self._is_held
            if self._timer is None and not self.transport.is_closing() and (is_for_body or not is_busy):
                self._is_for_body, self._received, self._was_held = is_for_body, 0, self._is_held
                delay_s, late = (limits.slow_s, self._body_is_late) if is_for_body else (limits.head_s, self._too_slow)
                self._timer = self.loop.call_later(delay_s, late)

        @property
        def _is_held(self) -> bool:
            return self.flow.read_paused or (bool(self.cycle) and self.cycle.waiting_for_100_continue)

        def _body_is_late(self) -> None:
            self._timer = None
            if not self._is_within or self._was_held or self._received >= LEAST_RATE * limits.slow_s:
                self._watch()
            else:
                self._too_slow()

        def _too_slow(self) -> None:
            self._timer = None
            if self._since_body or self._is_for_body:
                self._status = 408
                self._stop_reading()
            else:
                # A client that connects ahead of its first request expects no answer.
                self.transport.close()

        def _stop_watching(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedProtocol
