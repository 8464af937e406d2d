"""`auditrace serve`: the API, and beside it worker, relay and checkpoints, in one process."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec
import uvicorn

from service.api.app import create_app
from service.api.auth import ApiKeyAuthenticator, Authenticator, BearerAuthenticator
from service.api.follows import Follows
from service.api.jwks import fetch_from
from service.api.jwt import JwtAuthenticator
from service.api.jwt_keys import KeySet
from service.api.key_uses import ApiKeyUses
from service.api.parts import ApiServices, ApiSettings
from service.api.tenant_limits import TenantLimits
from service.api.throttle import Throttle
from service.api.waiting import JobWaits
from service.bootstrap.configuring import configure
from service.bootstrap.examined import API, DELIVERY, WEBHOOKS, WORKER
from service.bootstrap.isolating import protect
from service.bootstrap.listening import BACKLOG, listen
from service.bootstrap.node import VERSION, Node
from service.config import Settings
from service.errors import SettingsError
from service.operations.rates import Limit
from service.operations.tallies import Tallies
from service.processes.connections import ACCEPTED_AT_ONCE, IDLE_S, ConnectionLimits, allowed_connections, bounded
from service.processes.parts import Parts
from service.processes.reloading import Reload, ReloadSignal
from service.processes.stopping import Say, StopSignal
from telemetry.server import ServerSpans

LISTENING: Final = "auditrace listens on "
"""The beginning of the line on standard output with the address of the API; printed once it takes requests."""

REQUESTS_SHARE: Final = 0.25
"""The share of the grace in which requests in progress are answered, while runs end at the same time."""


def serve(settings: Settings, say: Say, *, with_worker: bool, with_relay: bool) -> int:
    """Serve until a stop is asked for, and return the exit status of a clean stop; `say` gets lines for the operator.

    Raises:
        SettingsError: before anything was started.
        TryLaterError: the database cannot be used now.
    """
    protect(settings)
    checks = [*API, *(WORKER if with_worker else ()), *([DELIVERY, WEBHOOKS] if with_relay else ())]
    with StopSignal(reloads=True) as stop, ReloadSignal() as reload, ExitStack() as undo:
        listeners: list[socket.socket] = []
        try:
            listeners.append(undo.enter_context(listen(settings)))
        except SettingsError as error:
            # The node refuses to open, and reports this problem together with all others.
            settings = msgspec.structs.replace(settings, problems=(*settings.problems, *error.problems))
        node = Node(settings, "api", is_daemon=True, checks=list(dict.fromkeys(checks)))
        parts = Parts(node, say, with_worker=with_worker, with_relay=with_relay)
        try:
            configure(node, parts.configured, parts.endpoints, stop.wait)
            admin_key = node.ensure_admin_key()
            if admin_key is not None:
                say(f"the ledger is in {node.place}")
                say(f"the key of the first administrator is in {admin_key}")
            parts.start()
            waits, follows = JobWaits(node.reads), Follows(node.reads)
            node.committed += [waits.wake, follows.wake]
            key_set = _key_set(node)
            others = [key_set.expire] if key_set else []
            reload.listen(Reload(node, parts.configured, parts.endpoints, stop.wait, others))
            app = create_app(_api(node, parts, waits, follows, key_set))
            spans = ServerSpans(app, node.telemetry.tracer, node.telemetry.instruments, node.monotonic)
            _Server(spans, _limits(node), parts, say, stop, [waits.release, follows.release]).run(listeners)
        finally:
            reload.end()
            parts.stop()
    return 0


class _Server(uvicorn.Server):
    """uvicorn on a socket that is bound already; prints its address once it takes requests."""

    def __init__(
        self,
        app: ServerSpans,
        limits: ConnectionLimits,
        parts: Parts,
        say: Say,
        stop: StopSignal,
        release: Sequence[Callable[[], None]],
    ) -> None:
        self._parts = parts
        self._say = say
        self._stop = stop
        self._release = release
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(limits),
                ws="none",
                backlog=ACCEPTED_AT_ONCE,
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                # An address from a header is a claim; service/api/request_source.py says whose claim is believed.
                proxy_headers=False,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=max(1, int(parts.grace.seconds * REQUESTS_SHARE)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to take requests."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._stop.descriptor, self._leave)
        for bound in sockets or ():
            # asyncio made the kernel's queue as short as the number of connections that it accepts at once.
            bound.listen(BACKLOG)
            host, port = bound.getsockname()[:2]
            self._say(f"{LISTENING}http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop once the requests in progress are answered; waits for jobs and follows of the trail end at once."""
        for release in self._release:
            release()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to `StopSignal`: uvicorn would handle two of them, and only from its own start on."""
        yield

    def _leave(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._stop.descriptor)
        self._parts.grace.at_hurry(lambda: self._cut_in(loop))
        self._stop.on_second(self._parts.grace.hurry)
        self._parts.retire()
        self.should_exit = True

    def _cut_in(self, loop: asyncio.AbstractEventLoop) -> None:
        # The event loop is closed once all requests are answered.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        """End the requests in progress."""
        for task in self.server_state.tasks:
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _limits(node: Node) -> ConnectionLimits:
    return ConnectionLimits(
        is_trusted=node.settings.proxies.trusts,
        connections=allowed_connections(),
        of_one_source=node.settings.connections_per_source,
        count=node.telemetry.instruments.connection_ended,
    )


def _api(node: Node, parts: Parts, waits: JobWaits, follows: Follows, key_set: KeySet | None) -> ApiServices:
    services = node.client_services()
    limits, instruments = node.settings.limits, node.telemetry.instruments
    tenant_limits = TenantLimits(limits, node.reads, node.monotonic)
    node.recorded.append(tenant_limits.recorded)
    instruments.limit_requests(Limit)
    return ApiServices(
        services=services,
        reads=node.reads,
        authenticator=_authenticator(node, parts, key_set),
        tallies=Tallies(node.tally_services()),
        throttle=Throttle(limits, node.reads, node.clock, node.monotonic),
        tenant_limits=tenant_limits,
        on_over_limit=instruments.request_refused,
        waits=waits,
        follows=follows,
        ready=parts.ready,
        render_metrics=node.telemetry.render_metrics,
        settings=ApiSettings(
            version=VERSION,
            max_input_bytes=node.settings.max_input_bytes,
            trace_url_template=node.settings.trace_url_template,
            proxies=node.settings.proxies,
        ),
    )


def _key_set(node: Node) -> KeySet | None:
    jwt = node.settings.jwt
    return None if jwt is None else KeySet(fetch_from(jwt.jwks, node.settings.environment), node.clock)


def _authenticator(node: Node, parts: Parts, key_set: KeySet | None) -> Authenticator:
    covered = parts.keys or node.covered_keys()
    keys = ApiKeyAuthenticator(covered, ApiKeyUses(node.client_services().ledger, node.clock), node.clock)
    jwt = node.settings.jwt
    if jwt is None or key_set is None:
        return BearerAuthenticator(keys)
    return BearerAuthenticator(keys, JwtAuthenticator(jwt, key_set, node.clock))
