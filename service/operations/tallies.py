"""Counts events that may come in floods, so that a flood leaves few records, and hides no event that is not part of it.

service/operations/budgets.py decides what is counted. The first event of a tally gets its record at once, the others
one record at the end of the minute, with their number.

Not promised: the counts of the current minute are in memory only. A clean stop commits them. A killed process loses
them, but never a first event. Each process counts separately.
"""

import asyncio
import logging
from typing import Final

import msgspec

from service.errors import AuditraceError, RefusedError, ThrottledError, UnauthenticatedError
from service.operations.base import Operation, Services, refused_fact
from service.operations.budgets import OTHERS, Bounds, Budgets, EventKind, Owner, cut
from service.operations.counts import Count, fact_of, one, together
from service.operations.steps import Decision, Step
from service.ports import Receipt
from service.records import AuditContext, Fact
from telemetry import names
from telemetry.audit.record import Result, Target
from telemetry.tracing import AuditedSpan

_log = logging.getLogger(__name__)

TALLY_SPAN: Final = "audit tally"
LEDGER: Final = Target("ledger", "auditrace")
MINUTE_NS: Final = 60 * 1_000_000_000


class _Tally(msgspec.Struct, kw_only=True, eq=False):
    kind: EventKind
    reason: str | None
    first: "asyncio.Future[Receipt] | None" = None
    count: Count | None = None
    users: int = 0
    """How many requests and commits may still change the count."""
    is_of_ended_minute: bool = False

    def add(self, kind: EventKind, context: AuditContext) -> None:
        self.count = together(self.count, one(kind, context))

    @property
    def is_idle(self) -> bool:
        return self.count is None and not self.users

    def turn(self) -> None:
        """Begin another minute: its first event gets a record again."""
        self.is_of_ended_minute = self.count is not None
        if self.first is not None and self.first.done():
            self.first = None


class Tallies:
    """Records or counts denied logins, audit reads, refusals and requests over a limit, by the minute.

    Only one event loop may use it.
    """

    def __init__(self, services: Services, bounds: Bounds | None = None) -> None:
        self._services = services
        self._bounds = bounds or Bounds()
        self._minute = 0
        self._budgets = Budgets(self._bounds)
        self._tallies: dict[tuple[Owner | None, EventKind], _Tally] = {}
        self._flushing = asyncio.Lock()

    async def denied(self, context: AuditContext, span: AuditedSpan, refusal: UnauthenticatedError) -> None:
        """Count a request without a valid credential. If it made a record, the refusal names it.

        When it cannot be recorded now, it is counted: the answer is 401 in any case.
        """
        kind = EventKind(
            event_name=names.EVENT_AUTH_DENIED,
            result=Result.DENIED,
            target=Target("http.endpoint", context.http_route or OTHERS.id),
            reason=refusal.detail,
            source=context.client_address or "",
        )
        self._turn()
        tally = self._tally(None, self._budgets.place_denied(kind), refusal.detail)
        await self._count_surely(tally, kind, context, span, refusal)

    async def over_limit(
        self, context: AuditContext, span: AuditedSpan, refusal: RefusedError, limit: str, *, is_authenticated: bool
    ) -> None:
        """Count a request that was refused because it is over a limit. If it made a record, the refusal names it.

        When it cannot be recorded now, it is counted: the answer is the same in any case.
        """
        kind = EventKind(
            event_name=names.EVENT_REQUEST_THROTTLED,
            result=Result.REJECTED,
            target=Target("http.endpoint", context.http_route or OTHERS.id),
            source=None if is_authenticated else context.client_address or "",
            limit=limit,
        )
        self._turn()
        owner = _owner(context) if is_authenticated else None
        counted = self._budgets.place_denied(kind) if owner is None else self._budgets.place(owner, kind)
        # A request for whose kind there is no room in memory has a tally of its own, which ends with it.
        tally = _Tally(kind=kind, reason=None) if counted is None else self._tally(owner, counted, refusal.detail)
        await self._count_surely(tally, kind, context, span, refusal)

    async def audit_read(
        self, context: AuditContext, span: AuditedSpan, filter_text: str, event_name: str = names.EVENT_AUDIT_READ
    ) -> None:
        """Record or count a read of the audit trail. The result may be returned to the client after this.

        Raises:
            TryLaterError: its record, or the one of the first read of its kind, could not be committed.
        """
        kind = EventKind(event_name=event_name, result=Result.SUCCESS, target=LEDGER, filter_text=cut(filter_text))
        fact = fact_of(msgspec.structs.replace(kind, filter_text=filter_text), None)
        tally = self._placed(context, kind, None)
        if tally is None:
            await self._commit(fact, context, span)
        else:
            await self._count(tally, kind, context, span, fact)

    async def refuse(
        self, context: AuditContext, span: AuditedSpan, tried: EventKind, refusal: RefusedError
    ) -> RefusedError:
        """Record or count a refusal, and return the error for the client, which names the record if there is one.

        Beyond the budget of the actor, the first 403 of a kind still gets its record. All else is throttled.

        Raises:
            TryLaterError: its record, or the one of the first refusal of its kind, could not be committed.
        """
        fact = refused_fact(tried.event_name, tried.target, refusal)
        tally = self._placed(context, tried, refusal.detail)
        if tally is None:
            refusal.receipt = await self._commit(fact, context, span)
            return refusal
        is_denied = tried.result is Result.DENIED
        first = fact if is_denied else fact_of(tried, refusal.detail)
        receipt = await self._count(tally, tried, context, span, first)
        answer = refusal if is_denied and receipt is not None else self._throttled(refusal)
        answer.receipt = receipt
        return answer

    def refused(self, context: AuditContext, result: Result) -> None:
        """Note that an operation recorded a refusal of this actor."""
        self._turn()
        self._budgets.spend(_owner(context), result)

    def admit(self, context: AuditContext) -> bool:
        """Return whether the operation of this request may record its refusal; else it is left to `refuse`."""
        self._turn()
        return self._budgets.admit(_owner(context))

    async def keep(self) -> None:
        """Commit the counts of each minute at its end, until this task is cancelled."""
        while True:
            await asyncio.sleep((MINUTE_NS - self._services.clock() % MINUTE_NS) / 1_000_000_000)
            # When this is cancelled, `flush` waits for the commits that have begun.
            await asyncio.shield(self.flush_ended())

    async def flush_ended(self) -> None:
        """Commit the counts of the minutes that have ended; a count that cannot be committed now is kept."""
        async with self._flushing:
            self._turn()
            await asyncio.gather(*(self._close(tally) for tally in self._tallies.values() if tally.is_of_ended_minute))

    async def flush(self) -> None:
        """Commit all counts, also those of the current minute: at a clean stop, before the ledger closes."""
        async with self._flushing:
            await asyncio.gather(*(self._close(tally) for tally in self._tallies.values()))

    def _turn(self) -> None:
        """Begin a minute if the last one has ended; what is not committed yet stays, and takes room of the new one."""
        minute = self._services.clock() // MINUTE_NS
        if minute == self._minute:
            return
        self._minute = minute
        self._tallies = {place: tally for place, tally in self._tallies.items() if not tally.is_idle}
        for tally in self._tallies.values():
            tally.turn()
        self._budgets = Budgets(self._bounds, self._tallies)

    def _placed(self, context: AuditContext, kind: EventKind, reason: str | None) -> _Tally | None:
        self._turn()
        owner = _owner(context)
        counted = self._budgets.place(owner, kind)
        return None if counted is None else self._tally(owner, counted, reason)

    def _tally(self, owner: Owner | None, kind: EventKind, reason: str | None) -> _Tally:
        known = self._tallies.get((owner, kind))
        if known is None:
            known = self._tallies[owner, kind] = _Tally(kind=kind, reason=None if reason is None else cut(reason))
        return known

    async def _count(
        self, tally: _Tally, kind: EventKind, context: AuditContext, span: AuditedSpan, first: Fact
    ) -> Receipt | None:
        """Commit the first event of a minute and return its receipt; later events wait for it and are only counted."""
        is_first = tally.first is None
        if tally.first is None:
            tally.first = asyncio.ensure_future(self._commit(first, context, span))
        committing = tally.first
        tally.users += 1
        try:
            receipt = await asyncio.shield(committing)
        except Exception:
            if tally.first is committing:
                tally.first = None
            raise
        finally:
            tally.users -= 1
        if is_first:
            return receipt
        tally.add(kind, context)
        return None

    async def _count_surely(
        self, tally: _Tally, kind: EventKind, context: AuditContext, span: AuditedSpan, refusal: RefusedError
    ) -> None:
        try:
            refusal.receipt = await self._count(tally, kind, context, span, fact_of(kind, refusal.detail))
        except AuditraceError:
            _log.warning("a refused request could not be recorded yet; it is counted", exc_info=True)
            tally.add(kind, context)

    async def _close(self, tally: _Tally) -> None:
        count, tally.count, tally.is_of_ended_minute = tally.count, None, False
        if count is None:
            return
        span = self._services.tracing.root(TALLY_SPAN)
        tally.users += 1
        try:
            fact = fact_of(tally.kind, tally.reason, count.number, len(count.kinds))
            await self._commit(fact, count.context, span)
        except Exception:  # noqa: BLE001 - after any error the count is kept, and the other counts continue
            tally.count, tally.is_of_ended_minute = together(count, tally.count), True
            _log.warning("a count of %d could not be committed yet", count.number, exc_info=True)
        finally:
            tally.users -= 1
            span.end()

    async def _commit(self, fact: Fact, context: AuditContext, span: AuditedSpan) -> Receipt:
        operation, decision = Operation(self._services, context, span), Decision([Step(fact=fact)], None)
        done = await operation.attempt(fact.event_name, fact.target, lambda _transaction, _now_ns: decision)
        return done.receipt

    def _throttled(self, refusal: RefusedError) -> ThrottledError:
        left_s = -(-(MINUTE_NS - self._services.clock() % MINUTE_NS) // 1_000_000_000)
        limit = self._bounds.records
        return ThrottledError(
            f"more than {limit} of your requests were refused within a minute; this one: {refusal.detail}", left_s
        )


def _owner(context: AuditContext) -> Owner:
    return context.tenant_id, context.actor.issuer or "", context.actor.id
