"""The dependencies of handlers: operations and audit reads bound to the request's context, made here alone."""

from litestar.di import Provide

from service.api.exchange import context_of, exchange_of
from service.api.messages import NoMembers
from service.api.parts import parts_of
from service.api.requests import BODY, ApiRequest
from service.operations.jobs import JobOperations
from service.operations.reading import AuditReading


async def provide_operations(request: ApiRequest) -> JobOperations:
    """Return the job operations of this request.

    Raises:
        InvalidRequestError: the route takes no members and the body has some.
    """
    if request.route_handler.opt.get(BODY) is NoMembers and await request.body():
        await request.json()
    # The body decides about idempotency only; an upload is not hashed for nothing.
    body = await request.body() if "idempotency-key" in request.headers else None
    context = context_of(request.scope, body)
    return JobOperations(parts_of(request.scope).services, context, exchange_of(request.scope).span)


async def provide_reading(request: ApiRequest) -> AuditReading:
    """Return the audit reads of this request."""
    parts, exchange = parts_of(request.scope), exchange_of(request.scope)
    return AuditReading(parts.services, context_of(request.scope), exchange.span, parts.reads, parts.tallies)


DEPENDENCIES = {"operations": Provide(provide_operations), "reading": Provide(provide_reading)}
