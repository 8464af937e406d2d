"""Counts events that may come in floods, so that a flood leaves few records: the first event at once, then a count.

Not promised: the counts of the current minute are in memory only. A clean stop commits them. A killed process loses
them, but never the first record of a key. Each process counts separately.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from service.errors import AuditraceError, RefusedError, ThrottledError, UnauthenticatedError
from service.operations.base import Operation, Services
from service.operations.steps import Decision, Step
from service.ports import Receipt
from service.records import AuditContext, Fact, change
from telemetry import names
from telemetry.audit.record import Result, Target
from telemetry.tracing import AuditedSpan

_log = logging.getLogger(__name__)

TALLY_SPAN: Final = "audit tally"
LEDGER: Final = Target("ledger", "auditrace")
OTHER: Final = "other"
MAX_REFUSALS: Final = 60
MAX_KEYS: Final = 1024
MINUTE_NS: Final = 60 * 1_000_000_000

Key: TypeAlias = tuple[int, str, str, str, str]
"""Minute, event, tenant, actor, and a detail that tells keys apart."""


FactOf: TypeAlias = Callable[[int, bool], Fact]
"""Returns the fact of a count; True as the second argument means all keys that are not kept apart."""


class _Tally(msgspec.Struct, kw_only=True, eq=False):
    fact_of: FactOf
    context: AuditContext
    is_other: bool
    first: "asyncio.Future[Receipt] | None" = None
    pending: int = 0


class Tallies:
    """Counts denied logins, audit reads and throttled requests by the minute. Only one event loop may use it."""

    def __init__(self, services: Services, *, max_keys: int = MAX_KEYS) -> None:
        """Keep at most `max_keys` keys apart at a time; further keys of an actor are counted together as `other`."""
        self._services = services
        self._max_keys = max_keys
        self._tallies: dict[Key, _Tally] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._refusals_minute = 0
        self._flushing = asyncio.Lock()

    async def denied(self, context: AuditContext, span: AuditedSpan, refusal: UnauthenticatedError) -> None:
        """Count a request without a valid credential, by source and route. If it made a record, the refusal names it.

        When it cannot be recorded now, it is counted: the answer is 401 in any case.
        """

        def fact_of(count: int, is_other: bool) -> Fact:
            return Fact(
                event_name=names.EVENT_AUTH_DENIED,
                target=Target("http.endpoint", OTHER if is_other else context.http_route or OTHER),
                result=Result.DENIED,
                changes={"count": change(None, count)},
                reason=refusal.detail,
                error_type=refusal.error_type,
            )

        tally = self._tally(names.EVENT_AUTH_DENIED, context, f"{context.client_address} {context.http_route}", fact_of)
        try:
            receipt = await self._count(tally, context, span)
        except AuditraceError:
            _log.warning("a denied request could not be recorded yet; it is counted", exc_info=True)
            tally.pending += 1
        else:
            refusal.receipt = receipt

    async def audit_read(
        self, context: AuditContext, span: AuditedSpan, filter_text: str, event_name: str = names.EVENT_AUDIT_READ
    ) -> None:
        """Count a read of the audit trail, by actor and filter. The result may be returned to the client after this.

        Raises:
            TryLaterError: the first read of this minute could not be recorded.
        """

        def fact_of(count: int, is_other: bool) -> Fact:
            return Fact(
                event_name=event_name,
                target=LEDGER,
                result=Result.SUCCESS,
                changes={"filter": change(None, OTHER if is_other else filter_text), "count": change(None, count)},
            )

        await self._count(self._tally(event_name, context, filter_text, fact_of), context, span)

    async def throttled(self, context: AuditContext, span: AuditedSpan, cause: RefusedError) -> ThrottledError:
        """Count a refusal by actor, and return the error for the client; if a record was made, the error names it.

        Raises:
            TryLaterError: the first one of this minute could not be recorded.
        """
        left_s = -(-(MINUTE_NS - self._services.clock() % MINUTE_NS) // 1_000_000_000)
        refusal = ThrottledError(
            f"more than {MAX_REFUSALS} of your requests were refused within a minute; this one: {cause.detail}", left_s
        )
        target = Target("http.endpoint", context.http_route or OTHER)

        def fact_of(count: int, _is_other: bool) -> Fact:
            return Fact(
                event_name=names.EVENT_REQUEST_THROTTLED,
                target=target,
                result=Result.REJECTED,
                changes={"count": change(None, count)},
                reason=f"more than {MAX_REFUSALS} requests of this actor were refused within a minute",
                error_type=refusal.error_type,
            )

        receipt = await self._count(self._tally(names.EVENT_REQUEST_THROTTLED, context, "", fact_of), context, span)
        refusal.receipt = receipt
        return refusal

    def refused(self, context: AuditContext) -> None:
        """Count that a request of this actor was refused and recorded."""
        self._turn_refusals()
        actor = (context.tenant_id, context.actor.id)
        self._refusals[actor] = self._refusals.get(actor, 0) + 1

    def is_too_often_refused(self, context: AuditContext) -> bool:
        """Return whether the actor was refused so often in this minute that further refusals are only counted."""
        self._turn_refusals()
        return self._refusals.get((context.tenant_id, context.actor.id), 0) >= MAX_REFUSALS

    async def keep(self) -> None:
        """Commit the counts of each minute at its end, until this task is cancelled."""
        while True:
            await asyncio.sleep((MINUTE_NS - self._services.clock() % MINUTE_NS) / 1_000_000_000)
            # When this is cancelled, `flush` waits for the commits that have begun.
            await asyncio.shield(self.flush_ended())

    async def flush_ended(self) -> None:
        """Commit the counts of the minutes that have ended; a count that cannot be committed now is kept."""
        async with self._flushing:
            minute = self._minute()
            ended = [(key, tally) for key, tally in self._tallies.items() if key[0] < minute]
            await asyncio.gather(*(self._close(tally) for _, tally in ended))
            for key, tally in ended:
                if not tally.pending:
                    del self._tallies[key]

    async def flush(self) -> None:
        """Commit all counts, also those of the current minute: at a clean stop, before the ledger closes."""
        async with self._flushing:
            await asyncio.gather(*(self._close(tally) for tally in self._tallies.values()))

    def _tally(self, event_name: str, context: AuditContext, detail: str, fact_of: FactOf) -> _Tally:
        who = (self._minute(), event_name, context.tenant_id, context.actor.id)
        known = self._tallies.get((*who, detail))
        if known is not None:
            return known
        is_other = len(self._tallies) >= self._max_keys
        # No detail begins with a line break, so no client can choose a filter that is counted as `other`.
        key = (*who, f"\n{OTHER}" if is_other else detail)
        common = AuditContext(
            actor=context.actor,
            tenant_id=context.tenant_id,
            source=context.source,
            client_address=None if is_other else context.client_address,
            http_route=None if is_other else context.http_route,
        )
        return self._tallies.setdefault(key, _Tally(fact_of=fact_of, context=common, is_other=is_other))

    async def _count(self, tally: _Tally, context: AuditContext, span: AuditedSpan) -> Receipt | None:
        """Commit the first event of a minute and return its receipt; later events wait for it and are only counted."""
        is_first = tally.first is None
        if tally.first is None:
            tally.first = asyncio.ensure_future(self._commit(tally.fact_of(1, tally.is_other), context, span))
        first = tally.first
        try:
            receipt = await asyncio.shield(first)
        except Exception:
            if tally.first is first:
                tally.first = None
            raise
        if is_first:
            return receipt
        tally.pending += 1
        return None

    async def _close(self, tally: _Tally) -> None:
        count, tally.pending = tally.pending, 0
        if not count:
            return
        span = self._services.tracing.root(TALLY_SPAN)
        try:
            await self._commit(tally.fact_of(count, tally.is_other), tally.context, span)
        except Exception:  # noqa: BLE001 - after any error the count is kept, and the other counts continue
            tally.pending += count
            _log.warning("a count of %d could not be committed yet", count, exc_info=True)
        finally:
            span.end()

    async def _commit(self, fact: Fact, context: AuditContext, span: AuditedSpan) -> Receipt:
        operation, decision = Operation(self._services, context, span), Decision([Step(fact=fact)], None)
        done = await operation.attempt(fact.event_name, fact.target, lambda _transaction, _now_ns: decision)
        return done.receipt

    def _minute(self) -> int:
        return self._services.clock() // MINUTE_NS

    def _turn_refusals(self) -> None:
        minute = self._minute()
        if minute != self._refusals_minute:
            self._refusals_minute = minute
            self._refusals.clear()
