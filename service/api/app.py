"""Puts the API together: routes, guard, dependencies, errors, headers, limits."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from litestar import Litestar, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.types import HTTPScope, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Message, Receive, Scope, Send

from service.api import audit, contents, explorer, export, health, jobs, ledger, me, templates
from service.api.parts import ApiServices
from service.api.problems import answer_problem
from service.api.refusals import record_refusal
from service.api.request import DEPENDENCIES, ApiRequest, admit, exchange_of, url_path
from service.api.schema import Described, openapi_document
from service.api.texts import routed_path


class Application(Litestar):
    """Litestar, but for the paths that it would take for others: `//v1/jobs` and `/v1%2fjobs` are not `/v1/jobs`."""

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Serve one request, or the life of the application."""
        if scope["type"] != "lifespan":
            scope["path"] = routed_path(url_path(scope))
        await super().__call__(scope, receive, send)


def create_app(parts: ApiServices) -> Litestar:
    """Return the application. It commits its tallies while it runs and when it stops; the ledger must outlive it."""
    settings = parts.settings
    audited = Router(
        "/",
        route_handlers=[
            me.get_me,
            templates.list_templates,
            jobs.create_job,
            jobs.list_jobs,
            jobs.get_job,
            jobs.list_runs,
            jobs.draft_job,
            jobs.confirm_job,
            jobs.run_job,
            jobs.retry_job,
            jobs.cancel_job,
            contents.list_artifacts,
            contents.get_artifact,
            audit.list_records,
            audit.get_record,
            audit.get_job_trail,
            ledger.list_streams,
            ledger.list_checkpoints,
            ledger.get_proof,
            export.export_records,
        ],
        guards=[admit],
        dependencies=DEPENDENCIES,
        request_max_body_size=settings.max_json_bytes,
    )
    uploads = Router(
        "/",
        route_handlers=[contents.put_input],
        guards=[admit],
        dependencies=DEPENDENCIES,
        request_max_body_size=settings.max_input_bytes,
    )
    opened = Router(
        "/",
        route_handlers=[
            health.live,
            health.ready,
            health.metrics,
            openapi_document,
            explorer.explorer_page,
            explorer.explorer_script,
            explorer.explorer_style,
        ],
    )
    routes = [audited, uploads, opened]
    return Application(
        routes,
        state=State({"parts": parts, "described": Described(routes, settings.version)}),
        request_class=ApiRequest,
        exception_handlers={Exception: answer_problem},
        after_exception=[record_refusal],
        before_send=[add_headers],
        lifespan=[keep_tallies],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


async def add_headers(message: Message, scope: Scope) -> None:
    """Put on every answer, errors included, what clients and browsers rely on."""
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


def _methods(scope: HTTPScope) -> list[str]:
    paths = scope["litestar_app"].route_handler_method_map.values()
    return sorted(method for path in paths if scope["route_handler"] in path.values() for method in path)


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
