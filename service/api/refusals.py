"""Records the refusals that no operation recorded: a malformed body, a bad header, and those that come too often."""

import logging
from typing import cast

from litestar.types import HTTPScope, Scope

from service.api.parts import parts_of
from service.api.problems import error_of
from service.api.request import context_of, exchange_of, route_of
from service.api.routing import EVENT
from service.api.texts import is_uuid, shown
from service.errors import RefusedError, TryLaterError
from service.operations.base import result_of
from service.operations.budgets import EventKind, cut
from service.operations.tallies import LEDGER
from telemetry import names
from telemetry.audit.record import Target

_log = logging.getLogger(__name__)


async def record_refusal(exception: Exception, scope: Scope) -> None:
    """Record the refusal of an audited route unless its operation did; Litestar calls this before it answers.

    If that fails, the answer is the error of that failure: no refusal without a record.
    """
    exchange = exchange_of(scope)
    error = exchange.failure = error_of(exception)
    if not isinstance(error, RefusedError | TryLaterError):
        _log.error("request %s failed", exchange.request_id, exc_info=exception)
    if isinstance(error, TryLaterError) and error.detail != error.summary:
        _log.warning("request %s is to come again: %s", exchange.request_id, error.detail)
    if isinstance(error, RefusedError) and error.limit is not None:
        await _record_over_limit(cast("HTTPScope", scope), error, error.limit)
        return
    event_name = scope["route_handler"].opt.get(EVENT) if "route_handler" in scope else None
    if not isinstance(error, RefusedError) or event_name is None or not exchange.is_authenticated:
        return
    request = cast("HTTPScope", scope)
    context, parts = context_of(request), parts_of(scope)
    if error.receipt is not None:
        parts.tallies.refused(context, result_of(error))
        return
    tried = EventKind(
        event_name=error.event_name or event_name,
        result=result_of(error),
        target=error.target or _target(event_name, request),
        filter_text=None if error.filter_text is None else cut(error.filter_text),
    )
    try:
        exchange.failure = await parts.tallies.refuse(context, exchange.span, tried, error)
    except Exception as failure:  # noqa: BLE001 - whatever it is, the client must get an answer, and this is it
        exchange.failure = error_of(failure)
        _log.warning("the refusal of request %s could not be recorded", exchange.request_id, exc_info=failure)


async def _record_over_limit(scope: HTTPScope, refusal: RefusedError, limit: str) -> None:
    exchange, parts = exchange_of(scope), parts_of(scope)
    parts.on_over_limit(limit)
    is_authenticated = exchange.is_authenticated
    await parts.tallies.over_limit(context_of(scope), exchange.span, refusal, limit, is_authenticated=is_authenticated)


def _target(event_name: str, scope: HTTPScope) -> Target:
    if event_name in {names.EVENT_AUDIT_READ, names.EVENT_AUDIT_EXPORT, names.EVENT_AUDIT_VERIFY}:
        return LEDGER
    key_id = str(scope["path_params"].get("key_id", ""))
    if key_id:
        return Target("key", shown(key_id))
    job_id = str(scope["path_params"].get("job_id", ""))
    return Target("job", job_id) if is_uuid(job_id) else Target("http.endpoint", route_of(scope))
