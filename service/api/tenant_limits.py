"""Bounds what one tenant may change, so that it takes neither the speed nor the disk from others.

Only changes are refused. Whoever reads jobs or the trail of a tenant that is over its limits can still do so.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from service.errors import TenantFullError
from service.jobs.model import TenantId
from service.operations.key_names import RESERVED_ACTORS
from service.operations.rates import MAX_BUCKETS, Buckets, Limit, RequestLimits, throttled
from service.ports import Reads
from service.records import AuditContext
from service.units import shown_size
from telemetry import names

HEADROOM: Final = 1 / 8
"""So much more than its limit a tenant may store for what ends work and takes rights away."""

ALWAYS: Final = frozenset({names.EVENT_JOB_CANCEL, names.EVENT_JOB_REJECT, names.EVENT_KEY_REVOKE})
"""They store little, and whoever fills the room of the tenant must not be able to prevent them."""

ENDINGS: Final = frozenset({*ALWAYS, names.EVENT_KEY_CREATE, names.EVENT_KEY_ROTATE})
"""The events for which the headroom is, and which no rate of records stops."""

_LOOK_S: Final = 1.0


class TenantLimits:
    """The limits of tenants. Rates are those of this process; the bytes stored are those of the whole ledger."""

    def __init__(self, limits: RequestLimits, reads: Reads, monotonic: Callable[[], float]) -> None:
        self._most_bytes = limits.tenant_bytes
        self._reads = reads
        self._monotonic = monotonic
        self._jobs: Buckets[str] = Buckets(limits.tenant_jobs, monotonic)
        self._records: Buckets[str] = Buckets(limits.tenant_records, monotonic)
        self._stored: dict[str, tuple[float, int]] = {}

    def recorded(self, context: AuditContext, number: int) -> None:
        """Count committed records of a tenant, also those of its runs; any thread may call this.

        Those of requests without a credential have the tenant `default`, and count for no tenant.
        """
        if context.actor.id not in RESERVED_ACTORS:
            self._records.spend(context.tenant_id, number)

    async def admit(self, tenant_id: TenantId, event_name: str, size: int) -> None:
        """Count a change that is asked for, with a body of `size` bytes.

        Raises:
            ThrottledError: the tenant changes too much at present.
            TenantFullError: the tenant stores too much.
            TryLaterError: what the tenant stores cannot be read.
        """
        await self._require_room(tenant_id, event_name, size)
        wait_s = 0 if event_name in ENDINGS else self._records.wait_s(tenant_id)
        if wait_s > 0:
            raise throttled("your tenant makes too many records", wait_s, Limit.TENANT_RECORDS)
        wait_s = self._jobs.take(tenant_id) if event_name == names.EVENT_JOB_CREATE else 0
        if wait_s > 0:
            raise throttled("your tenant creates too many jobs", wait_s, Limit.TENANT_JOBS)

    async def _require_room(self, tenant_id: TenantId, event_name: str, size: int) -> None:
        if self._most_bytes is None or event_name in ALWAYS:
            return
        stored = await self._stored_bytes(tenant_id)
        most = int(self._most_bytes * (1 + HEADROOM)) if event_name in ENDINGS else self._most_bytes
        if stored + size > most:
            refusal = TenantFullError(
                f"your tenant stores {shown_size(stored)} of {shown_size(self._most_bytes)} (AUDITRACE_TENANT_BYTES): "
                "smaller requests may still fit; the operator of the service can raise the limit"
            )
            refusal.limit = Limit.TENANT_BYTES
            raise refusal
        # Until the next look, what was let in counts as stored.
        read_at, known = self._stored[tenant_id]
        self._stored[tenant_id] = (read_at, known + size)

    async def _stored_bytes(self, tenant_id: TenantId) -> int:
        known = self._stored.get(tenant_id)
        if known is None or self._monotonic() - known[0] >= _LOOK_S:
            if len(self._stored) >= MAX_BUCKETS:
                self._stored.clear()
            read_at = self._monotonic()
            known = read_at, await asyncio.to_thread(self._reads.stored_bytes, tenant_id)
            self._stored[tenant_id] = known
        return known[1]
