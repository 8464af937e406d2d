"""The routes that machines ask without a credential: alive, ready, metrics."""

import asyncio
from collections.abc import Mapping

import msgspec
from litestar import Response

from service.api.methods import get
from service.api.parts import FAILED, parts_of
from service.api.requests import ApiRequest

# Litestar adds the charset of every text.
METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"


class Health(msgspec.Struct, frozen=True):
    """Whether the service is alive or ready, and how each of its parts is."""

    status: str
    checks: Mapping[str, str] = {}


@get("/health/live")
async def live() -> Health:
    """Answer as long as the process serves at all."""
    return Health("live")


@get("/health/ready")
async def ready(request: ApiRequest) -> Response[Health]:
    """Answer 200 when requests can be carried out, else 503; a sink that is away does not make it unready."""
    checks = await asyncio.to_thread(parts_of(request.scope).ready)
    is_ready = not any(state.startswith(FAILED) for state in checks.values())
    return Response(Health("ready" if is_ready else "not ready", checks), status_code=200 if is_ready else 503)


@get("/metrics")
async def metrics(request: ApiRequest) -> Response[bytes]:
    """Return the metrics in the text format of Prometheus."""
    return Response(await asyncio.to_thread(parts_of(request.scope).render_metrics), media_type=METRICS_MEDIA_TYPE)
