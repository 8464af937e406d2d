"""`auditrace serve`: the API, and beside it worker, relay and checkpoints, in one process."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import uvicorn

from service.api.app import create_app
from service.api.auth import ApiKeyAuthenticator, Authenticator, BearerAuthenticator
from service.api.jwt import JwtAuthenticator, JwtSettings, KeySet, fetch_from
from service.api.parts import ApiServices, ApiSettings
from service.api.waiting import JobWaits
from service.bootstrap.node import VERSION, Node
from service.config import Settings
from service.errors import SettingsError
from service.operations.tallies import Tallies
from service.processes.connections import ACCEPTED_AT_ONCE, allowed_connections, bounded
from service.processes.parts import Parts
from service.processes.stopping import StopSignal
from telemetry.server import ServerSpans

LISTENING: Final = "auditrace listens on "
"""How the line on standard output begins that says where the API is; it comes when requests are taken."""

_BACKLOG: Final = 2048


def serve(settings: Settings, say: Callable[[str], None], *, with_worker: bool, with_relay: bool) -> int:
    """Serve until a stop is asked for, and return the exit status of a clean stop; `say` takes lines for the operator.

    Raises:
        SettingsError: before anything was started.
        TryLaterError: the database cannot be used now.
    """
    with StopSignal() as stop:
        listener = listen(settings)
        node = Node(settings, "api", is_daemon=True)
        parts = Parts(node, with_worker=with_worker, with_relay=with_relay)
        try:
            admin_key = node.ensure_admin_key()
            if admin_key is not None:
                say(f"the key of the first administrator is in {admin_key}")
            parts.start()
            waits = JobWaits(node.reads)
            node.committed.append(waits.wake)
            app = create_app(_api(node, parts, waits))
            spans = ServerSpans(app, node.telemetry.tracer, node.telemetry.instruments, node.monotonic)
            _Server(spans, settings, say, stop, waits).run([listener])
        finally:
            parts.stop()
    return 0


class _Server(uvicorn.Server):
    """uvicorn on a socket that is bound already; says where it listens once it takes requests."""

    def __init__(
        self, app: ServerSpans, settings: Settings, say: Callable[[str], None], stop: StopSignal, waits: JobWaits
    ) -> None:
        self._say = say
        self._stop = stop
        self._waits = waits
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(allowed_connections()),
                ws="none",
                backlog=ACCEPTED_AT_ONCE,
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                # An address from a header is a claim of the client, and records state where a request came from.
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, settings.shutdown_grace_ms // 1000),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        # uvicorn hears signals only from its own start on, and only two of them.
        asyncio.get_running_loop().add_reader(self._stop.descriptor, self._leave)
        for bound in sockets or ():
            # asyncio made the queue of the kernel as short as what it accepts at once.
            bound.listen(_BACKLOG)
            host, port = bound.getsockname()[:2]
            self._say(f"{LISTENING}http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to serve, once the requests in progress are answered; those that wait for a job are so at once."""
        self._waits.release()
        await super().shutdown(sockets)

    def _leave(self) -> None:
        asyncio.get_running_loop().remove_reader(self._stop.descriptor)
        self.should_exit = True


def _api(node: Node, parts: Parts, waits: JobWaits) -> ApiServices:
    services = node.client_services()
    return ApiServices(
        services=services,
        reads=node.reads,
        authenticator=_authenticator(node),
        tallies=Tallies(services),
        waits=waits,
        ready=parts.ready,
        render_metrics=node.telemetry.render_metrics,
        settings=ApiSettings(
            version=VERSION,
            max_input_bytes=node.settings.max_input_bytes,
            trace_url_template=node.settings.trace_url_template,
        ),
    )


def _authenticator(node: Node) -> Authenticator:
    keys = ApiKeyAuthenticator(node.reads)
    jwt = node.settings.jwt
    if jwt is None:
        return BearerAuthenticator(keys)
    settings = JwtSettings(
        issuer=jwt.issuer,
        audience=jwt.audience,
        jwks=jwt.jwks,
        roles_claim=jwt.roles_claim,
        tenant_claim=jwt.tenant_claim,
    )
    return BearerAuthenticator(keys, JwtAuthenticator(settings, KeySet(fetch_from(jwt.jwks), node.clock), node.clock))


def listen(settings: Settings) -> socket.socket:
    """Bind before anything is started, so that a port in use changes nothing.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        # The last two are what a port out of range and a host that is no name give.
        raise SettingsError(
            [f"cannot listen on {settings.host}:{settings.port}: {error}; set AUDITRACE_HOST or AUDITRACE_PORT"]
        ) from error
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these do not; without it
    # the body of an answer waits for the client's delayed acknowledgement of the head, 40 ms each time.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
