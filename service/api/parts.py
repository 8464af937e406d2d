"""The services behind the API: passed in once by the composition root, the same for every request."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec
from litestar.types import Scope

from service.api.auth import Authenticator
from service.api.follows import Follows
from service.api.proxy_settings import ProxySettings
from service.api.tenant_limits import TenantLimits
from service.api.throttle import Throttle
from service.api.waiting import JobWaits
from service.operations.base import Services
from service.operations.tallies import Tallies
from service.ports import Reads

READY: Final = "ok"
"""The text of `ready` for a part that works; any other text is shown as it is."""
FAILED: Final = "failed"
"""The begin of the text of a part that makes the service not ready; other texts are details of a ready service."""
DEGRADED: Final = "degraded"
"""Shown in place of other texts to callers that may not see them."""

AUDIT_READS_AT_ONCE: Final = 3
"""Fewer than the threads of asyncio, of which there are at least five."""

_MIB: Final = 1024 * 1024


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and links of the API."""

    version: str
    max_json_bytes: int = _MIB
    max_input_bytes: int = 8 * _MIB
    trace_url_template: str | None = None
    proxies: ProxySettings = ProxySettings()


class ApiServices(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the API uses.

    `ready` returns the state of each part (`ok`, `failed: …`, or a detail); `render_metrics` returns the text format
    of Prometheus. Both are called in a thread and may read the database.
    """

    services: Services
    reads: Reads
    authenticator: Authenticator
    tallies: Tallies
    waits: JobWaits
    follows: Follows
    ready: Callable[[], Mapping[str, str]]
    render_metrics: Callable[[], bytes]
    settings: ApiSettings
    throttle: Throttle
    tenant_limits: TenantLimits
    on_over_limit: Callable[[str], object]
    """Called for each request that is refused because it is over a limit, with the limit."""
    audit_reads: asyncio.Semaphore = msgspec.field(default_factory=lambda: asyncio.Semaphore(AUDIT_READS_AT_ONCE))
    """Bounds the reads of the trail that use threads at the same time, so that long ones leave threads to others."""


def parts_of(scope: Scope) -> ApiServices:
    """Return the services of the application that serves this request."""
    return cast("ApiServices", scope["litestar_app"].state["parts"])
