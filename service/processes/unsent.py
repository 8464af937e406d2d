"""Ends connections whose client takes its answer too slowly, so that answers in memory have a bound.

A connection is watched while bytes of its answer wait in this process. What counts is what leaves for the client, by
the kernel's count of bytes that the client has not acknowledged: a client that reads is never taken for one that does
not, however large the buffers in between are.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

LEAST_RATE: Final = 1024
"""Bytes a second: a hundredth of what a slow mobile network carries, and enough to end what stands still."""
SLOW_S: Final = 30.0
"""The time over which the rate is measured: longer than connections stand still when a phone changes its network."""
UNSENT_BYTES: Final = 12 * 1024 * 1024
"""The bytes of whole answers that may wait in a process for clients: about three of the largest pages of a listing."""

# Answers of several parts are watched for their rate only: so much of each is in memory.
_PART_BYTES: Final = 128 * 1024
# A client may stand still for so long before it can be ended for the sake of others.
_STILL_S: Final = 2.0
_NOT_SENT_BYTES: Final = 128 * 1024
_RESET: Final = struct.pack("ii", 1, 0)


class _Waiting(msgspec.Struct, eq=False):
    """The unsent bytes of one connection; times are those of the event loop."""

    transport: asyncio.Transport
    end: Callable[[str], None]
    since: float
    queued: int
    queued_last: int
    moved_at: float
    began: float
    queued_first: int

    @property
    def bytes_here(self) -> int:
        return self.transport.get_write_buffer_size()


class UnsentAnswers:
    """The connections of a process on which bytes wait for the client. For one event loop."""

    def __init__(self, slow_s: float = SLOW_S, max_bytes: int = UNSENT_BYTES) -> None:
        self._slow_s = slow_s
        self._max_bytes = max_bytes
        self._waiting: dict[asyncio.Transport, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.Transport, end: Callable[[str], None]) -> None:
        """Watch a connection from now on; `end` is called with the reason when it is ended."""
        loop, queued = asyncio.get_running_loop(), _queued(transport)
        now = loop.time()
        waiting = self._waiting[transport] = _Waiting(transport, end, now, queued, queued, now, now, queued)
        if self._timer is None:
            self._timer = loop.call_later(self._slow_s / 30, self._look, loop)
        if waiting.bytes_here > _PART_BYTES:
            self._make_room(waiting, now)

    def forget(self, transport: asyncio.Transport) -> None:
        """Stop to watch a connection: all its bytes are sent, or it is closed."""
        self._waiting.pop(transport, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for waiting in list(self._waiting.values()):
            queued = _queued(waiting.transport)
            if queued < waiting.queued_last:
                waiting.moved_at = now
            waiting.queued_last = queued
            if now - waiting.since < self._slow_s:
                continue
            if waiting.queued - queued < LEAST_RATE * self._slow_s:
                self._end(waiting, "slow_reader")
            waiting.since, waiting.queued = now, queued
        self._timer = loop.call_later(self._slow_s / 30, self._look, loop) if self._waiting else None

    def _make_room(self, last: _Waiting, now: float) -> None:
        """End other whole answers that stand still, the longest first; if too many bytes are left, the last one."""
        others = [each for each in self._waiting.values() if each is not last and each.bytes_here > _PART_BYTES]
        left = sum(each.bytes_here for each in others)
        old = [each for each in others if now - each.began >= _STILL_S]
        for each in sorted(old, key=lambda each: (each.queued_first - _queued(each.transport)) / (now - each.began)):
            if left <= self._max_bytes:
                return
            left -= each.bytes_here
            self._end(each, "unsent_bytes")
        if left > self._max_bytes:
            self._end(last, "unsent_bytes")

    def _end(self, waiting: _Waiting, reason: str) -> None:
        self.forget(waiting.transport)
        waiting.end(reason)
        reset(waiting.transport)


def prepare(transport: asyncio.Transport) -> None:
    """Have the kernel take little that it cannot send yet, and the application wait while bytes are here."""
    # Without this the kernel takes up to megabytes for each client that does not read.
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES)
    transport.set_write_buffer_limits(high=0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once, with all bytes that wait, the kernel's too; the client sees that it is incomplete."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _queued(transport: asyncio.Transport) -> int:
    """Return how many bytes the client has not acknowledged, here and in the kernel."""
    in_kernel = bytes(4)
    with suppress(OSError):
        in_kernel = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
    return transport.get_write_buffer_size() + int.from_bytes(in_kernel, "little")
