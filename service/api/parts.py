"""The services behind the API: passed in once by the composition root, the same for every request."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

import msgspec
from litestar.types import Scope

from service.api.at_once import AtOnce
from service.api.auth import Authenticator
from service.api.follows import Follows
from service.api.monitoring import Monitoring
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
BULK_THREADS: Final = 2
"""The threads of exports and downloads: one can read while another one writes text; more would not be faster."""
MAX_EXPORTS: Final = 16
"""How many exports of a process may be in progress: each holds about 1 MiB while its client does not read."""
MAX_EXPORTS_OF_ONE_ACTOR: Final = 4
MAX_DOWNLOADS: Final = 32
"""How many artifacts of more than 256 KiB a process may be sending: each holds that much."""
MAX_DOWNLOADS_OF_ONE_ACTOR: Final = 16

_MIB: Final = 1024 * 1024

MAX_UPLOADED_BYTES: Final = 128 * _MIB
MAX_UPLOADED_BYTES_OF_ONE_ACTOR: Final = 64 * _MIB


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
    bulk_threads: ThreadPoolExecutor = msgspec.field(
        default_factory=lambda: ThreadPoolExecutor(BULK_THREADS, thread_name_prefix="bulk")
    )
    exports: AtOnce = msgspec.field(default_factory=lambda: AtOnce("exports", MAX_EXPORTS, MAX_EXPORTS_OF_ONE_ACTOR))
    downloads: AtOnce = msgspec.field(
        default_factory=lambda: AtOnce("downloads", MAX_DOWNLOADS, MAX_DOWNLOADS_OF_ONE_ACTOR)
    )
    uploads: AtOnce = msgspec.field(
        default_factory=lambda: AtOnce("bytes of uploads", MAX_UPLOADED_BYTES, MAX_UPLOADED_BYTES_OF_ONE_ACTOR)
    )
    """Counts bytes, because a body is in memory as a whole."""
    monitoring: Monitoring = msgspec.field(default_factory=Monitoring)


def parts_of(scope: Scope) -> ApiServices:
    """Return the services of the application that serves this request."""
    return cast("ApiServices", scope["litestar_app"].state["parts"])
