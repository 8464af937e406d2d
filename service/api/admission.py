"""The guard of every `/v1` route: who calls, whether they may go on, and whether the head of the request is sound."""

from typing import Any, Final, cast

from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.handlers import BaseRouteHandler
from litestar.types import HTTPScope

from service.api.auth import bearer_token
from service.api.declared import require_declared
from service.api.parts import parts_of
from service.api.request import BODY, context_of, exchange_of
from service.api.texts import is_idempotency_key, is_uuid
from service.errors import (
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)

EVENT: Final = "event"
"""The key of a route's options under which the name of its event stands; routes without one leave no records."""


async def admit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the request pass to its handler.

    Raises:
        RefusedError: it may not pass; nothing of its body was read.
        TryLaterError: the credential cannot be checked now.
    """
    scope = cast("HTTPScope", connection.scope)
    await identify(scope, connection.headers)
    if EVENT in handler.opt:
        exchange_of(scope).is_too_often_refused = parts_of(scope).tallies.is_too_often_refused(context_of(scope))
    _require_ids(scope)
    _require_once(connection.headers)
    _require_sound_head(connection.headers, scope["method"], takes_json=BODY in handler.opt)
    require_declared(list(connection.query_params.multi_items()), handler)


async def identify(scope: HTTPScope, headers: Headers) -> None:
    """Find out who calls, and keep it with the request; who fails is counted.

    Raises:
        UnauthenticatedError: there is no credential, or it does not hold.
        TryLaterError: the credential cannot be checked now.
    """
    exchange, parts = exchange_of(scope), parts_of(scope)
    try:
        token = bearer_token(headers.getall("authorization", []))
        exchange.credential = await parts.authenticator.authenticate(token)
    except UnauthenticatedError as refusal:
        await parts.tallies.denied(context_of(scope), exchange.span, refusal)
        raise


def _require_ids(scope: HTTPScope) -> None:
    """Refuse ids that no job or record can have, so that no other text ever reaches the database."""
    for name in ("job_id", "record_id"):
        value = scope["path_params"].get(name)
        if value is not None and not is_uuid(str(value)):
            raise NotFoundError(f"there is no such {name.removesuffix('_id')}")


def _require_once(headers: Headers) -> None:
    """Refuse headers that decide what is done and come twice: two readers of the request would disagree about it."""
    for name in ("if-match", "idempotency-key", "content-type"):
        if len(headers.getall(name, [])) > 1:
            raise InvalidRequestError(f"the header {name} is given twice")


def _require_sound_head(headers: Headers, method: str, *, takes_json: bool) -> None:
    key = headers.get("idempotency-key")
    if method == "POST" and key is not None and not is_idempotency_key(key):
        raise InvalidRequestError("Idempotency-Key must be 1 to 255 printable ASCII characters")
    if method == "PUT" and "content-range" in headers:
        raise InvalidRequestError("Content-Range is not taken: send the input as a whole")
    is_packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    if is_packed and (takes_json or method == "PUT"):
        # A body is what was sent, byte for byte: its hash is on record, and it is what a run is given.
        raise UnsupportedMediaTypeError("Content-Encoding is not taken: send the body as it is")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if takes_json and has_body and media_type != "application/json":
        raise UnsupportedMediaTypeError("the body must be application/json")
