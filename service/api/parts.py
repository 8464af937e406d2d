"""What the API is made of: handed over once by the composition root, the same for every request."""

from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec
from litestar.types import Scope

from service.api.auth import Authenticator
from service.api.waiting import JobWaits
from service.operations.base import Services
from service.operations.tallies import Tallies
from service.ports import Reads

READY: Final = "ok"
"""What `ready` says of a part that works; anything else is shown as it is."""
FAILED: Final = "failed"
"""How the text of a part begins that makes the service not ready; other texts are details of a ready service."""
DEGRADED: Final = "degraded"
"""What a caller who may not know the text learns of a part that neither works nor failed."""

_MIB: Final = 1024 * 1024


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and links of the API."""

    version: str
    max_json_bytes: int = _MIB
    max_input_bytes: int = 8 * _MIB
    trace_url_template: str | None = None


class ApiServices(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the API uses.

    `ready` answers what state each part is in (`ok`, `failed: …`, or a detail); `render_metrics` answers the text
    exposition of Prometheus. Both are called in a thread and may read the database.
    """

    services: Services
    reads: Reads
    authenticator: Authenticator
    tallies: Tallies
    waits: JobWaits
    ready: Callable[[], Mapping[str, str]]
    render_metrics: Callable[[], bytes]
    settings: ApiSettings


def parts_of(scope: Scope) -> ApiServices:
    """Return what the application that serves this request is made of."""
    return cast("ApiServices", scope["litestar_app"].state["parts"])
