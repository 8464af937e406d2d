"""What clients that send slowly, or do not read, can hold: their own connection, and that for a time."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.processes.connections import ConnectionLimits, bounded
from service.processes.sources import IsTrusted

BOUND_S = 60.0
PIECE = b"x" * 65536
LAST_CHUNK = b"0\r\n\r\n"
ASK = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """A bare application behind the service's protocol.

    `/stream` answers with pieces until `may_end` is set, `/whole/N` with one body of N pieces, `/body` with the size
    of the body it gets. `/later` does the same once `may_read` is set.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.may_read = asyncio.Event()
        self.may_end = asyncio.Event()
        self.states = ServerState()
        self._port = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        _, kind, *rest = scope["path"].split("/")
        if kind == "later":
            await self.may_read.wait()
        size, message = 0, {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while kind == "stream" and not self.may_end.is_set() and not gone.done():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await asyncio.sleep(0)
        gone.cancel()
        body = PIECE * int(rest[0]) if kind == "whole" else str(size).encode() if kind in {"body", "later"} else b""
        await send({"type": "http.response.body", "body": body})

    @asynccontextmanager
    async def serving(
        self, *, of_one_source: int = 1000, is_trusted: IsTrusted = lambda _: False, **limits: Any
    ) -> AsyncGenerator["Server"]:
        """Serve within these limits; what never comes fails the test instead of hanging it."""
        protocol = bounded(
            ConnectionLimits(
                connections=1000,
                of_one_source=of_one_source,
                is_trusted=is_trusted,
                count=lambda reason: self.counts.update([reason]),
                **limits,
            )
        )
        config = Config(self.app, http=protocol, interface="asgi3", lifespan="off", log_config=None)
        config.load()
        made: Callable[..., asyncio.Protocol] = protocol

        def connected() -> asyncio.Protocol:
            return made(config=config, server_state=self.states, app_state={})

        server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(BOUND_S):
            yield self
        server.close()
        for connection in list(self.states.connections):
            connection.transport.abort()

    async def reach(self, source: str = "127.0.0.1") -> socket.socket:
        """Open a connection, as a socket that has a small buffer."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        raw.bind((source, 0))
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        return raw

    async def connect(self, sent: bytes = b"", *, source: str = "127.0.0.1") -> Connection:
        """Open a connection that takes little into its own buffers, and send this."""
        raw = await self.reach(source)
        reader, writer = await asyncio.open_connection(sock=raw, limit=65536)
        writer.write(sent)
        return reader, writer

    async def ended(self, reason: str, number: int = 1) -> None:
        """Wait until so many connections were ended for this reason."""
        while self.counts[reason] < number:
            await self.health()

    async def health(self) -> None:
        """Ask for a small answer on a connection of its own, and get it."""
        reader, writer = await self.connect(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


def _run(scenario: Callable[[Server], Any]) -> None:
    async def run() -> None:
        await scenario(Server())

    asyncio.run(run())


async def _rest(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            parts.append(part)
    return b"".join(parts)


def test_one_source_does_not_take_the_connections_of_others() -> None:
    """The connection too many of an address is told 429; another address gets in, and so does the next one later."""

    async def scenario(server: Server) -> None:
        async with server.serving(of_one_source=2):
            held = [await server.connect(source="127.0.0.2") for _ in range(2)]
            refused, _ = await server.connect(source="127.0.0.2")
            answer = await refused.read()
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 1\r\n" in answer
            await server.health()
            held[0][1].close()
            answer = b"HTTP/1.1 429 "
            while answer.startswith(b"HTTP/1.1 429 "):
                again, _ = await server.connect(ASK % b"/", source="127.0.0.2")
                answer = await again.readline()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert server.counts["connections_of_source"] >= 1

    _run(scenario)


def test_a_trusted_proxy_brings_the_connections_of_many() -> None:
    """What comes from a trusted address has no limit as one source."""

    async def scenario(server: Server) -> None:
        async with server.serving(of_one_source=1, is_trusted=lambda address: address == "127.0.0.3"):
            for _ in range(5):
                reader, _ = await server.connect(ASK % b"/", source="127.0.0.3")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            assert not server.counts

    _run(scenario)


def test_a_body_that_drips_is_ended_and_others_go_on() -> None:
    """408 and the end of the connection; a body that the service itself does not take yet may wait."""

    async def scenario(server: Server) -> None:
        async with server.serving(slow_s=0.3):
            waiting, waiting_out = await server.connect(POST.replace(b"/body", b"/later") % 300_000)
            waiting_out.write(b"y" * 299_999)
            dripping, dripping_out = await server.connect(POST % 100_000)
            dripping_out.write(b"z" * 10)
            answer = await _rest(dripping)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"\r\nconnection: close\r\n" in answer
            for _ in range(3):
                # Each takes as long as one more look at the rates.
                silent, _ = await server.connect(POST % 5)
                assert (await _rest(silent)).startswith(b"HTTP/1.1 408 ")
            server.may_read.set()
            waiting_out.write(b"y")
            assert (await waiting.readuntil(b"300000")).startswith(b"HTTP/1.1 200 ")
            assert server.counts == {"slow_request": 4}

    _run(scenario)


def test_a_client_that_waits_to_be_asked_for_its_body_is_not_slow() -> None:
    """With `Expect: 100-continue` the time begins when the service asks for the body."""

    async def scenario(server: Server) -> None:
        async with server.serving(slow_s=0.3):
            head = POST.replace(b"/body", b"/later").replace(b"Host: a", b"Host: a\r\nExpect: 100-continue") % 5
            polite, polite_out = await server.connect(head)
            for _ in range(3):
                silent, _ = await server.connect(POST % 5)
                assert (await _rest(silent)).startswith(b"HTTP/1.1 408 ")
            server.may_read.set()
            assert (await polite.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            polite_out.write(b"12345")
            assert (await polite.readline()).startswith(b"HTTP/1.1 200 ")

    _run(scenario)


def test_a_reader_that_does_not_read_is_ended_and_one_that_reads_slowly_is_not() -> None:
    """The first sees that its answer is incomplete; the second gets all of it, over several times the time limit."""

    async def scenario(server: Server) -> None:
        async with server.serving(slow_s=2.0):
            with await server.reach() as steady:
                loop, end = asyncio.get_running_loop(), b""
                await loop.sock_sendall(steady, ASK % b"/stream")
                for number in range(1, 4):
                    stuck, _ = await server.connect(ASK % b"/stream")
                    while server.counts["slow_reader"] < number:
                        assert await loop.sock_recv(steady, 4096)
                        await server.health()
                    assert not (await _rest(stuck)).endswith(LAST_CHUNK)
                server.may_end.set()
                while not end.endswith(LAST_CHUNK):
                    part = await loop.sock_recv(steady, 1 << 20)
                    assert part, "the answer broke off"
                    end = end[-10:] + part
            assert server.counts == {"slow_reader": 3}

    _run(scenario)


def test_whole_answers_in_memory_are_bounded() -> None:
    """Of answers that nobody takes, those that stand still longest are ended; who reads gets the answer in full."""

    async def scenario(server: Server) -> None:
        async with server.serving(unsent_bytes=20 * len(PIECE)):
            readers = [await server.connect(ASK % b"/whole/15") for _ in range(40)]
            await server.ended("unsent_bytes", 30)
            waiting = sum(each.transport.get_write_buffer_size() for each in server.states.connections)
            assert waiting <= 35 * len(PIECE)
            taken = b""
            while not taken.endswith(LAST_CHUNK):
                # It is refused itself until one of those before has stood still for long enough.
                reader, _ = await server.connect(ASK % b"/whole/100")
                taken = await _rest(reader)
            assert len(taken) > 100 * len(PIECE)
            assert server.counts["unsent_bytes"] >= len(readers) - 1

    _run(scenario)
