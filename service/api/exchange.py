"""One request and its answer: what is known of it so far, and the audit context that is made of that, once."""

import hashlib
from typing import Final
from urllib.parse import quote

import msgspec
from litestar.datastructures import Headers
from litestar.types import HTTPScope, Scope

from service.api.auth import Credential
from service.api.parts import parts_of
from service.api.texts import is_request_id, shown
from service.jobs.model import TenantId
from service.records import AuditContext
from telemetry.audit.record import Actor
from telemetry.tracing import AuditedSpan

ANONYMOUS: Final = Credential(Actor("anonymous", "user"), TenantId("default"), frozenset(), "none")

_KEY: Final = "auditrace_exchange"


class Exchange(msgspec.Struct, kw_only=True, eq=False):
    """What one request has gathered; it lives in the ASGI scope."""

    request_id: str
    span: AuditedSpan
    credential: Credential = ANONYMOUS
    failure: Exception | None = None
    is_too_often_refused: bool = False

    @property
    def is_authenticated(self) -> bool:
        """True when the request came with a credential that holds."""
        return self.credential is not ANONYMOUS


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of this request; made by whoever asks first, a refused routing included."""
    state = scope["state"]
    exchange = state.get(_KEY)
    if not isinstance(exchange, Exchange):
        services = parts_of(scope).services
        given = Headers.from_scope(scope).getall("x-request-id", [])
        request_id = given[0] if len(given) == 1 and is_request_id(given[0]) else services.new_id()
        exchange = state[_KEY] = Exchange(request_id=request_id, span=services.tracing.current())
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
        body: the raw body; needed only where an Idempotency-Key is honoured.
    """
    exchange = exchange_of(scope)
    headers = Headers.from_scope(scope)
    path = url_path(scope)
    key = headers.get("idempotency-key") if scope["method"] == "POST" else None
    agent = headers.get("user-agent")
    client = scope["client"]
    return AuditContext(
        actor=exchange.credential.actor,
        tenant_id=exchange.credential.tenant_id,
        source="api",
        roles=exchange.credential.roles,
        request_id=exchange.request_id,
        client_address=shown(client[0]) if client else None,
        user_agent=shown(agent) if agent else None,
        http_method=scope["method"],
        http_route=route_of(scope) or None,
        url_path=shown(path),
        idempotency_key_sha256=_sha256(key.encode("latin-1", "replace")) if key is not None else None,
        body_sha256=_sha256(body) if body is not None else None,
        counts_refusals=exchange.is_too_often_refused,
    )


def url_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded, without the query."""
    raw = scope["raw_path"] if "raw_path" in scope else quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
