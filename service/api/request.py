"""One request: its credential, its audit context, and the operations that are bound to it.

JSON bodies are read strictly here, where Litestar would turn `"false"` into false and leave broken UTF-8 to a 500.
"""

import asyncio
import hashlib
from functools import cache
from typing import Any, Final, cast
from urllib.parse import quote

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.di import NamedDependency, Provide
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler
from litestar.types import HTTPScope, Scope

from service.api.at_once import InProgress
from service.api.auth import Credential, bearer_token
from service.api.bodies import NoMembers
from service.api.head import require_declared, require_ids, require_once, require_sound_head
from service.api.parts import ApiServices, parts_of
from service.api.proxy_identity import proxy_credential
from service.api.request_source import RequestSource, source_of
from service.api.routing import BODY, EVENT
from service.api.texts import is_request_id, shown
from service.errors import InvalidRequestError, UnauthenticatedError
from service.jobs.model import TenantId
from service.operations.job_reading import JobReading
from service.operations.jobs import JobOperations
from service.operations.keys import KeyOperations
from service.operations.reading import AuditReading
from service.records import AuditContext
from telemetry import names
from telemetry.audit.record import SERVICE_ISSUER, Actor
from telemetry.tracing import AuditedSpan

Operations = NamedDependency[JobOperations]
KeyChanges = NamedDependency[KeyOperations]
Jobs = NamedDependency[JobReading]
AuditReads = NamedDependency[AuditReading]

ANONYMOUS: Final = Credential(Actor("anonymous", "user", SERVICE_ISSUER), TenantId("default"), frozenset(), "none")

_KEY: Final = "auditrace_exchange"
_READS: Final = frozenset({"GET", "HEAD"})


class Exchange(msgspec.Struct, kw_only=True, eq=False):
    """The state of one request; it is kept in the ASGI scope."""

    request_id: str
    span: AuditedSpan
    source: RequestSource
    credential: Credential = ANONYMOUS
    failure: Exception | None = None
    leaves_refusals: bool = False

    @property
    def is_authenticated(self) -> bool:
        """True when the request has a valid credential."""
        return self.credential is not ANONYMOUS


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of this request; the first call makes it, even when no route matched."""
    state = scope["state"]
    exchange = state.get(_KEY)
    if not isinstance(exchange, Exchange):
        parts, headers = parts_of(scope), Headers.from_scope(scope)
        given = headers.getall("x-request-id", [])
        request_id = given[0] if len(given) == 1 and is_request_id(given[0]) else parts.services.new_id()
        source = source_of(_connected(scope), headers, parts.settings.proxies)
        if source.peer is not None:
            # For the server span, which knows the connection only.
            state |= {names.CLIENT_ADDRESS: source.address, names.NETWORK_PEER_ADDRESS: source.peer}
        span = parts.services.tracing.current()
        exchange = state[_KEY] = Exchange(request_id=request_id, span=span, source=source)
    return exchange


def route_of(scope: Scope) -> str:
    """Return the path template of the route, without types; empty when no route matched."""
    try:
        return scope["path_template"]
    except KeyError:
        return ""


def context_of(scope: HTTPScope, body: bytes | None = None) -> AuditContext:
    """Return the audit context of this request.

    Args:
        scope: the ASGI scope.
        body: the raw body; needed only with an Idempotency-Key.
    """
    exchange = exchange_of(scope)
    headers = Headers.from_scope(scope)
    path = url_path(scope)
    key = headers.get("idempotency-key") if scope["method"] == "POST" else None
    agent = headers.get("user-agent")
    return AuditContext(
        actor=exchange.credential.actor,
        tenant_id=exchange.credential.tenant_id,
        source="api",
        credential_id=exchange.credential.credential_id,
        person=exchange.credential.person,
        roles=exchange.credential.roles,
        request_id=exchange.request_id,
        client_address=exchange.source.address,
        peer_address=exchange.source.peer,
        user_agent=shown(agent) if agent else None,
        http_method=scope["method"],
        http_route=route_of(scope) or None,
        url_path=shown(path),
        idempotency_key_sha256=_sha256(key.encode("latin-1", "replace")) if key is not None else None,
        body_sha256=_sha256(body) if body is not None else None,
        leaves_refusals=exchange.leaves_refusals,
    )


async def admit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the request pass to its handler.

    Raises:
        RefusedError: it is refused; its body was not read.
        TryLaterError: the credential cannot be checked now.
    """
    scope = cast("HTTPScope", connection.scope)
    await identify(scope, connection.headers)
    await _require_within_limits(scope, connection.headers, handler)
    problem = exchange_of(scope).source.problem
    if problem is not None:
        raise InvalidRequestError(problem)
    if EVENT in handler.opt:
        exchange_of(scope).leaves_refusals = not parts_of(scope).tallies.admit(context_of(scope))
    require_ids(scope)
    require_once(connection.headers)
    require_sound_head(connection.headers, scope["method"], takes_json=BODY in handler.opt)
    require_declared(list(connection.query_params.multi_items()), handler)


async def identify(scope: HTTPScope, headers: Headers) -> None:
    """Authenticate the request and keep its credential; failures are counted.

    Raises:
        UnauthenticatedError: there is no credential, or it is not valid.
        ThrottledError: there are too many such requests, and this credential is not known as valid.
        TryLaterError: the credential cannot be checked now.
    """
    exchange, parts = exchange_of(scope), parts_of(scope)
    address = exchange.source.address
    try:
        try:
            presented = _presented(scope, headers)
        except UnauthenticatedError:
            parts.throttle.unauthenticated(address)
            raise
        if isinstance(presented, str):
            presented = await parts.throttle.authenticated(address, parts.authenticator, presented)
        exchange.credential = presented
    except UnauthenticatedError as refusal:
        await parts.tallies.denied(context_of(scope), exchange.span, refusal)
        raise


async def _require_within_limits(scope: HTTPScope, headers: Headers, handler: BaseRouteHandler) -> None:
    parts, credential = parts_of(scope), exchange_of(scope).credential
    parts.throttle.admit(credential.owner)
    event_name = handler.opt.get(EVENT)
    if event_name is not None and scope["method"] not in _READS:
        stated = headers.get("content-length", "0")
        size = int(stated) if stated.isascii() and stated.isdigit() else 0
        if "transfer-encoding" in headers:
            # Its size is not stated, so it counts as what it may be at most.
            size = parts.settings.max_json_bytes if BODY in handler.opt else parts.settings.max_input_bytes
        await parts.tenant_limits.admit(credential.tenant_id, event_name, size)


async def authenticate(scope: Scope, headers: Headers) -> Credential:
    """Return the credential of a request: what a trusted proxy states, or the one of its bearer token.

    Raises:
        UnauthenticatedError: there is no credential, or it is not valid.
        TryLaterError: the credential cannot be checked now.
    """
    presented = _presented(scope, headers)
    return await parts_of(scope).authenticator.authenticate(presented) if isinstance(presented, str) else presented


def _presented(scope: Scope, headers: Headers) -> Credential | str:
    """Return the credential that a trusted proxy states, or else the bearer token."""
    stated = proxy_credential(_connected(scope), headers, parts_of(scope).settings.proxies)
    return stated or bearer_token(headers.getall("authorization", []))


def in_progress(request: "ApiRequest") -> InProgress:
    """Return this request as those count it who bound how many there are at once; to be called in its own task."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    return InProgress(task, request.exchange.credential.owner)


def url_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded, without the query."""
    raw = scope["raw_path"] if "raw_path" in scope else quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")


class ApiRequest(Request[Any, Any, Any]):
    """A request whose JSON is decoded straight into the type of the route: unknown members and wrong types fail."""

    @property
    def parts(self) -> ApiServices:
        """The services of the application."""
        return parts_of(self.scope)

    @property
    def exchange(self) -> Exchange:
        """The state of this request."""
        return exchange_of(self.scope)

    def trace_link(self, trace_id: str) -> dict[str, str]:
        """Return the link to the trace backend, if one is set."""
        template = self.parts.settings.trace_url_template
        return {"trace": template.replace("{trace_id}", trace_id)} if template else {}

    async def json(self) -> Any:
        """Return the decoded body.

        Raises:
            InvalidRequestError: it is not JSON, not of this type, or holds texts that no record can hold.
        """
        body = await self.body()
        try:
            return _decoder(self.route_handler.opt[BODY]).decode(body)
        except UnicodeDecodeError as error:
            raise InvalidRequestError("the body is not valid UTF-8") from error
        except RecursionError as error:
            raise InvalidRequestError("the body is nested too deeply") from error
        except msgspec.DecodeError as error:
            raise InvalidRequestError(f"the body does not fit: {error}") from error


async def provide_operations(request: ApiRequest) -> JobOperations:
    """Return the job operations of this request.

    Raises:
        InvalidRequestError: the route takes no members and the body has some.
    """
    if request.route_handler.opt.get(BODY) is NoMembers and await request.body():
        await request.json()
    # The hash of the body is used for idempotency only.
    needs_body = request.method == HttpMethod.POST and "idempotency-key" in request.headers
    body = await request.body() if needs_body else None
    context = context_of(request.scope, body)
    return JobOperations(request.parts.services, context, request.exchange.span)


async def provide_key_changes(request: ApiRequest) -> KeyOperations:
    """Return the key operations of this request."""
    # The hash of the body is used for idempotency only.
    body = await request.body() if "idempotency-key" in request.headers else None
    return KeyOperations(request.parts.services, context_of(request.scope, body), request.exchange.span)


async def provide_jobs(request: ApiRequest) -> JobReading:
    """Return the job reads of this request."""
    return JobReading(context_of(request.scope), request.parts.reads)


async def provide_reading(request: ApiRequest) -> AuditReading:
    """Return the audit reads of this request."""
    parts = request.parts
    context, span = context_of(request.scope), request.exchange.span
    return AuditReading(parts.services, context, span, parts.reads, parts.tallies, parts.audit_reads)


DEPENDENCIES: Final = {
    "operations": Provide(provide_operations),
    "key_changes": Provide(provide_key_changes),
    "jobs": Provide(provide_jobs),
    "reading": Provide(provide_reading),
}


def _connected(scope: Scope) -> str | None:
    client = scope["client"]
    return client[0] if client else None


@cache
def _decoder(body_type: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(body_type)


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
