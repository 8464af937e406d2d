"""The routes for monitoring, without a credential: alive, ready, metrics."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

from service.api.fields import about
from service.api.parts import DEGRADED, FAILED, READY
from service.api.problems import problems
from service.api.request import ApiRequest, identify
from service.api.routing import get
from service.errors import TryLaterError
from service.roles import ADMIN, AUDITOR

# Litestar adds the charset of every text.
METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"

KNOWN_S: Final = 2.0
"""How long readiness waits for the roles of its caller: then the answer has no causes."""


class Health(msgspec.Struct, frozen=True):
    """Whether the service is alive or ready, and how each of its parts is."""

    status: Annotated[
        str, about("Whether the process lives, or takes requests.", "ready", enum=["live", "ready", "not ready"])
    ]
    checks: Annotated[
        Mapping[str, str],
        about(
            "The state of each part: `ok`, `degraded` or `failed`; in full for `auditor` and `admin`.",
            dict.fromkeys(("ledger", "writes", "checkpoints", "verification", "keys", "worker", "delivery"), "ok"),
        ),
    ] = {}


@get("/health/live", responses=problems(500))
async def live() -> Health:
    """Answer 200 while the process serves requests."""
    return Health("live")


@get(
    "/health/ready",
    # Without a credential, or with one.
    security=[{}, {"bearer": []}],
    responses={
        503: ResponseSpec(Health, description="A part that it needs has failed.", generate_examples=False),
        **problems(401, 429, 500),
    },
)
async def ready(request: ApiRequest) -> Response[Health]:
    """Answer 200 when requests can be carried out, else 503; without its sink the service stays ready.

    For each part the answer says `ok`, `degraded` or `failed`; for `auditor` and `admin` it says the cause too.
    """
    checks = await request.parts.monitoring.ask(request.parts.ready)
    is_ready = not any(state.startswith(FAILED) for state in checks.values())
    if not await _may_know(request):
        checks = {part: _in_a_word(state) for part, state in checks.items()}
    return Response(Health("ready" if is_ready else "not ready", checks), status_code=200 if is_ready else 503)


async def _may_know(request: ApiRequest) -> bool:
    if "authorization" not in request.headers:
        return False
    identified = asyncio.ensure_future(identify(request.scope, request.headers))
    # It goes on after the time, so that its refusal is recorded.
    identified.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        async with asyncio.timeout(KNOWN_S):
            await asyncio.shield(identified)
    except (TryLaterError, TimeoutError):
        # Readiness must be answered when keys cannot be looked up.
        return False
    return not request.exchange.credential.roles.isdisjoint({ADMIN, AUDITOR})


def _in_a_word(state: str) -> str:
    if state.startswith(FAILED):
        return FAILED
    return READY if state == READY else DEGRADED


@get("/metrics", media_type=METRICS_MEDIA_TYPE, response_description="The metrics.", responses=problems(500))
async def metrics(request: ApiRequest) -> Response[bytes]:
    """Return the metrics in the text format of Prometheus."""
    return Response(await request.parts.monitoring.ask(request.parts.render_metrics))
