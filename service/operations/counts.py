"""What a count of events is, and which fact it records; pure."""

from itertools import islice
from typing import Final

import msgspec

from service.errors import ThrottledError, UnauthenticatedError
from service.operations.budgets import EventKind
from service.records import AuditContext, Fact, change
from telemetry import names
from telemetry.audit.record import Result

MAX_COUNTED_KINDS: Final = 100
"""So many different kinds are told apart in the count of a folded kind; the count then says 100, for 100 or more."""

_SHARED: Final = ("credential_id", "client_address", "peer_address", "http_route")


class Count(msgspec.Struct, frozen=True):
    """How many events were counted, of which kinds (as hashes), and what all of them share of their contexts."""

    number: int
    kinds: frozenset[int]
    context: AuditContext


def one(kind: EventKind, context: AuditContext) -> Count:
    """Return the count of one event."""
    shared = AuditContext(
        actor=context.actor,
        tenant_id=context.tenant_id,
        source=context.source,
        credential_id=context.credential_id,
        client_address=context.client_address,
        peer_address=context.peer_address,
        http_route=context.http_route,
    )
    return Count(1, frozenset({hash(kind)}), shared)


def together(count: Count | None, more: Count | None) -> Count | None:
    """Return the count of both, in any order; address, route and credential stay only where all events have the same.

    Both are counts of events of one actor.
    """
    if count is None or more is None:
        return count or more
    kinds = count.kinds
    if not more.kinds <= kinds and len(kinds) < MAX_COUNTED_KINDS:
        kinds = frozenset(islice(kinds | more.kinds, MAX_COUNTED_KINDS))
    differs = {name: None for name in _SHARED if getattr(count.context, name) != getattr(more.context, name)}
    context = msgspec.structs.replace(count.context, **differs) if differs else count.context
    return Count(count.number + more.number, kinds, context)


def fact_of(kind: EventKind, reason: str | None, count: int = 1, kinds: int = 1) -> Fact:
    """Return the fact of so many events of a kind; that of a folded kind also states how many `kinds` they are of.

    `reason` is that of the first event. Refusals are recorded as `request.throttled`, with the event that was tried.
    """
    changes = {"count": change(None, count)}
    if kind.is_folded:
        changes["kinds"] = change(None, kinds)
    event_name, error_type = kind.event_name, None
    if event_name == names.EVENT_AUTH_DENIED:
        error_type = UnauthenticatedError.error_type
    elif kind.result is Result.SUCCESS:
        changes["filter"] = change(None, "other" if kind.filter_text is None else kind.filter_text)
    else:
        changes |= {"limit": change(None, kind.limit)} if kind.limit else {"event_name": change(None, event_name)}
        if kind.filter_text is not None:
            changes["filter"] = change(None, kind.filter_text)
        event_name, error_type = names.EVENT_REQUEST_THROTTLED, ThrottledError.error_type
    return Fact(
        event_name=event_name,
        target=kind.target,
        result=kind.result,
        changes=changes,
        reason=reason,
        error_type=error_type,
    )
