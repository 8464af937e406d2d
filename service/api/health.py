"""The routes that machines ask without a credential: alive, ready, metrics."""

import asyncio
from collections.abc import Mapping
from typing import Annotated

import msgspec
from litestar import Response
from msgspec import Meta

from service.api.documented import DOCUMENTED, Documented
from service.api.methods import get
from service.api.parts import DEGRADED, FAILED, READY, parts_of
from service.api.request import ApiRequest, exchange_of, identify
from service.errors import TryLaterError
from service.roles import ADMIN, AUDITOR

# Litestar adds the charset of every text.
METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"


class Health(msgspec.Struct, frozen=True):
    """Whether the service is alive or ready, and how each of its parts is."""

    status: Annotated[
        str,
        Meta(
            description="Whether the process lives, or takes requests.",
            extra_json_schema={"enum": ["live", "ready", "not ready"]},
        ),
    ]
    checks: Annotated[
        Mapping[str, str],
        Meta(description="How each part is: `ok`, `degraded` or `failed`; in full for `auditor` and `admin`."),
    ] = {}


@get("/health/live")
async def live() -> Health:
    """Answer as long as the process serves at all."""
    return Health("live")


@get(
    "/health/ready",
    opt={DOCUMENTED: Documented(also={503: "A part that it cannot do without has failed."}, optional_credential=True)},
)
async def ready(request: ApiRequest) -> Response[Health]:
    """Answer 200 when requests can be carried out, else 503; a sink that is away does not make it unready.

    Of each part anybody learns `ok`, `degraded` or `failed`; what is the matter with it, `auditor` and `admin` learn.
    """
    checks = await asyncio.to_thread(parts_of(request.scope).ready)
    is_ready = not any(state.startswith(FAILED) for state in checks.values())
    if not await _may_know(request):
        checks = {part: _in_a_word(state) for part, state in checks.items()}
    return Response(Health("ready" if is_ready else "not ready", checks), status_code=200 if is_ready else 503)


async def _may_know(request: ApiRequest) -> bool:
    if "authorization" not in request.headers:
        return False
    try:
        await identify(request.scope, request.headers)
    except TryLaterError:
        # Readiness is asked most of all when keys cannot be looked up.
        return False
    return not exchange_of(request.scope).credential.roles.isdisjoint({ADMIN, AUDITOR})


def _in_a_word(state: str) -> str:
    if state.startswith(FAILED):
        return FAILED
    return READY if state == READY else DEGRADED


@get("/metrics", opt={DOCUMENTED: Documented(answer="The metrics.", media_types=(METRICS_MEDIA_TYPE,))})
async def metrics(request: ApiRequest) -> Response[bytes]:
    """Return the metrics in the text format of Prometheus."""
    return Response(await asyncio.to_thread(parts_of(request.scope).render_metrics), media_type=METRICS_MEDIA_TYPE)
