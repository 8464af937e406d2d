"""What clients that hold connections can do to others: nothing."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.processes.connections import ConnectionLimits, bounded

BOUND_S = 60.0
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: a"
REST_OF_IT = b"\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A server whose only answer waits until it may be given."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def app(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Answer, when it is allowed."""
        self.asked.set()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def connect(self) -> Connection:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def _serving(limits: ConnectionLimits) -> AsyncGenerator[Served]:
    served = Served(0)
    config = Config(served.app, http=bounded(limits), interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    def protocol() -> asyncio.Protocol:
        made: Any = config.http_protocol_class
        protocol: asyncio.Protocol = made(config=config, server_state=state, app_state={})
        return protocol

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(BOUND_S):
        yield served
    server.close()


def test_one_connection_too_many_is_told_to_come_again() -> None:
    """It gets a 503 and is closed, the others stay, and there is room again once one of them has gone."""

    async def scenario() -> None:
        async with _serving(ConnectionLimits(connections=2, of_one_source=9)) as served:
            served.may_answer.set()
            (first, first_out), (_, second_out) = await served.connect(), await served.connect()
            third, third_out = await served.connect()
            refusal = await third.read()
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in refusal
            third_out.close()
            first_out.write(HALF_A_HEAD + REST_OF_IT)
            assert (await first.readline()).startswith(b"HTTP/1.1 200 ")
            second_out.close()
            answer = b"HTTP/1.1 503 "
            while answer.startswith(b"HTTP/1.1 503 "):
                again, again_out = await served.connect()
                again_out.write(HALF_A_HEAD + REST_OF_IT)
                answer = await again.readline()
                again_out.close()
            assert answer.startswith(b"HTTP/1.1 200 ")
            first_out.close()

    asyncio.run(scenario())


def test_a_client_that_does_not_finish_its_head_loses_its_connection_and_one_that_waits_does_not() -> None:
    """Silent and slow clients are let go, after an answer too; who asked may wait for the answer for any time."""

    async def scenario() -> None:
        async with _serving(ConnectionLimits(connections=9, head_s=0.2)) as served:
            asking, asking_out = await served.connect()
            asking_out.write(HALF_A_HEAD + REST_OF_IT)
            await served.asked.wait()
            silent, silent_out = await served.connect()
            slow, slow_out = await served.connect()
            slow_out.write(HALF_A_HEAD)
            assert await silent.read() == b""
            assert (await slow.read()).startswith(b"HTTP/1.1 408 ")
            served.may_answer.set()
            assert (await asking.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            asking_out.write(HALF_A_HEAD)
            assert (await asking.read()).startswith(b"HTTP/1.1 408 ")
            for writer in (asking_out, silent_out, slow_out):
                writer.close()

    asyncio.run(scenario())
