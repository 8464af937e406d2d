"""Puts the API together: routes, guard, dependencies, errors, headers, limits."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from types import ModuleType
from typing import cast

from litestar import Litestar, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.handlers import HTTPRouteHandler
from litestar.types import (
    HTTPReceiveMessage,
    HTTPScope,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Message,
    Receive,
    Scope,
    Send,
)

from service.api import audit, contents, explorer, health, jobs, keys, me, schema, templates
from service.api.fields import EVERYWHERE, sends
from service.api.parts import ApiServices, parts_of
from service.api.problems import answer_problem
from service.api.refusals import record_refusal
from service.api.request import DEPENDENCIES, ApiRequest, admit, exchange_of, url_path
from service.api.texts import routed_path
from service.operations.budgets import Owner


class Application(Litestar):
    """Litestar with exact paths: `//v1/jobs` and `/v1%2fjobs` are not `/v1/jobs`."""

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Serve one request, or the life of the application."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        scope["path"] = routed_path(url_path(scope))
        await super().__call__(scope, counting(scope, cast("Receive", receive)), send)


def create_app(parts: ApiServices) -> Litestar:
    """Return the application. It commits its tallies while it runs and when it stops; the ledger must outlive it."""
    settings = parts.settings
    downloads = [each for each in _handlers(contents) if each is not contents.put_input]
    guarded = Router(
        "/",
        route_handlers=[
            Router("/", tags=["caller"], route_handlers=_handlers(me)),
            Router("/", tags=["jobs"], route_handlers=_handlers(templates, jobs)),
            Router(
                "/",
                tags=["jobs"],
                route_handlers=[contents.put_input],
                request_max_body_size=settings.max_input_bytes,
            ),
            Router("/", tags=["jobs"], route_handlers=downloads),
            Router("/", tags=["keys"], route_handlers=_handlers(keys)),
            Router("/", tags=["audit"], route_handlers=_handlers(audit)),
        ],
        guards=[admit],
        dependencies=DEPENDENCIES,
        request_max_body_size=settings.max_json_bytes,
        response_headers=sends(*EVERYWHERE),
        security=[{"bearer": []}],
    )
    opened = Router(
        "/",
        tags=["operation"],
        route_handlers=_handlers(health, schema, explorer),
        response_headers=sends("X-Request-Id"),
    )
    routes = [guarded, opened]
    return Application(
        routes,
        state=State({"parts": parts, "document": cache(lambda: schema.document(routes, settings.version))}),
        request_class=ApiRequest,
        exception_handlers={Exception: answer_problem},
        after_exception=[record_refusal],
        before_send=[add_headers, count_sent],
        lifespan=[keep_threads, keep_tallies],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _handlers(*modules: ModuleType) -> list[HTTPRouteHandler]:
    """Return all handlers that these modules define, in their order; none that they import."""
    return [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, HTTPRouteHandler) and each.fn.__module__ == module.__name__
    ]


async def add_headers(message: Message, scope: Scope) -> None:
    """Add the headers that every answer has, errors included."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    headers["X-Request-Id"] = exchange_of(scope).request_id
    headers["X-Content-Type-Options"] = "nosniff"
    if scope["path"].startswith("/v1/"):
        headers["Cache-Control"] = "no-store"
    request = cast("HTTPScope", scope)
    if request["method"] == "OPTIONS" and "allow" in headers:
        # Litestar lists the methods of the path's first handler only.
        headers["Allow"] = ", ".join(_methods(request))


def counting(scope: Scope, receive: Receive) -> Receive:
    """Return `receive`, which also counts the bytes of the body for the credential of the request."""

    async def received() -> HTTPReceiveMessage:
        message = cast("HTTPReceiveMessage", await receive())
        if message["type"] == "http.request":
            _count(scope, message.get("body", b""))
        return message

    return cast("Receive", received)


async def count_sent(message: Message, scope: Scope) -> None:
    """Count the bytes of an answer for the credential of its request, and let an answer in pieces wait for its turn."""
    if message["type"] == "http.response.body":
        owner = _count(scope, message.get("body", b""))
        if owner is not None and message.get("more_body"):
            await parts_of(scope).throttle.keep_pace(owner)


def _count(scope: Scope, body: bytes) -> Owner | None:
    exchange = exchange_of(scope)
    if not exchange.is_authenticated:
        return None
    owner = exchange.credential.owner
    if body:
        parts_of(scope).throttle.moved(owner, len(body))
    return owner


def _methods(scope: HTTPScope) -> list[str]:
    paths = scope["litestar_app"].route_handler_method_map.values()
    return sorted(method for path in paths if scope["route_handler"] in path.values() for method in path)


@asynccontextmanager
async def keep_threads(app: Litestar) -> AsyncGenerator[None]:
    """Wait for the threads of exports and monitoring when the application stops, because they read the ledger."""
    yield
    parts: ApiServices = app.state["parts"]
    await asyncio.to_thread(parts.bulk_threads.shutdown)
    await asyncio.to_thread(parts.monitoring.close)


@asynccontextmanager
async def keep_tallies(app: Litestar) -> AsyncGenerator[None]:
    """Commit the tallies of each minute at its end, and the last ones when the application stops."""
    tallies = app.state["parts"].tallies
    keeper = asyncio.create_task(tallies.keep())
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        await tallies.flush()
