"""Idempotency keys: finds a request that was carried out before, so that its repetition changes nothing.

A key belongs to one actor of one issuer, and to one route, for 24 hours. It is stored with every request that was
carried out, also with a no-op: a `retry` of a job that was already queued must not run the job when it is repeated
after the job failed. A refused request has changed nothing, so its key is not stored, and the same request may be
carried out later.
"""

from typing import Final, TypeVar

import msgspec

from service.errors import IdempotencyConflictError
from service.operations.steps import Decision
from service.ports import IdempotencyEntry, PutIdempotencyEntry, Transaction
from service.records import AuditContext
from telemetry.audit.record import KEY_ISSUER, Actor

T = TypeVar("T")

REMEMBERED_NS: Final = 24 * 3600 * 1_000_000_000


def done_before(transaction: Transaction, context: AuditContext, named_id: str | None) -> str | None:
    """Return the id of the job or key of the earlier request that this request repeats; None when it repeats none.

    Args:
        transaction: the transaction of the request.
        context: the context of the request.
        named_id: the job or key that the request names; None when it makes one.

    Raises:
        IdempotencyConflictError: the key was used before with another request.
    """
    key = context.idempotency_key_sha256
    if key is None:
        return None
    entry = _entry(transaction, context, key)
    if entry is None:
        return None
    if entry.body_sha256 != context.body_sha256 or named_id not in {None, entry.job_id}:
        raise IdempotencyConflictError("this Idempotency-Key was used before with another request: use a new key")
    return entry.job_id


def remembering(decision: Decision[T], changed_id: str, context: AuditContext, now_ns: int) -> Decision[T]:
    """Return the decision about the job or key with this id; if the request has a key, the first step stores it."""
    key, body = context.idempotency_key_sha256, context.body_sha256
    if key is None or body is None:
        return decision
    entry = IdempotencyEntry(
        tenant_id=context.tenant_id,
        actor_id=_stored_actor(context.actor),
        route=context.http_route or "",
        key_sha256=key,
        body_sha256=body,
        job_id=changed_id,
        expires_ns=now_ns + REMEMBERED_NS,
    )
    first, *others = decision.steps
    step = msgspec.structs.replace(first, writes=(*first.writes, PutIdempotencyEntry(entry)))
    return msgspec.structs.replace(decision, steps=[step, *others])


def _stored_actor(actor: Actor) -> str:
    """Return the text under which entries of an actor are stored: the id alone for API keys, as older versions do.

    Neither an id nor an issuer holds a line break, so two actors never share a text.
    """
    return actor.id if actor.issuer == KEY_ISSUER else f"{actor.issuer}\n{actor.id}"


def _entry(transaction: Transaction, context: AuditContext, key_sha256: str) -> IdempotencyEntry | None:
    tenant_id, actor, route = context.tenant_id, context.actor, context.http_route or ""
    entry = transaction.remembered(tenant_id, _stored_actor(actor), route, key_sha256)
    if entry is not None or actor.issuer == KEY_ISSUER or transaction.key_named(tenant_id, actor.id) is not None:
        return entry
    # An older version stored the id alone for tokens too. No API key has this id, so the entry is of the token.
    return transaction.remembered(tenant_id, actor.id, route, key_sha256)
