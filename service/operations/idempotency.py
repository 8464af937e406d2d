"""Idempotency keys: which request was carried out before, so that repeating it does nothing a second time.

A key belongs to one actor and one route, for 24 hours. It is remembered with everything that was carried out, no-ops
included: a `retry` that found the job queued already must not run it again when it is repeated after the job failed.
A refused request has done nothing, so its key stays free: once the reason is gone, the same request is carried out.
"""

from typing import Final

import msgspec

from service.errors import IdempotencyConflictError
from service.jobs.model import Job, JobId
from service.operations.base import Decision
from service.ports import IdempotencyEntry, Remember, Transaction
from service.records import AuditContext

REMEMBERED_NS: Final = 24 * 3600 * 1_000_000_000


def job_made_before(transaction: Transaction, context: AuditContext, job_id: str | None) -> JobId | None:
    """Return the job of the request that this one repeats; None when it repeats none.

    Args:
        transaction: the one in which the request would be carried out.
        context: of the request.
        job_id: the job that the request names; None when it makes one.

    Raises:
        IdempotencyConflictError: the key was used before with another request.
    """
    key = context.idempotency_key_sha256
    if key is None:
        return None
    entry = transaction.remembered(context.tenant_id, context.actor.id, context.http_route or "", key)
    if entry is None:
        return None
    if entry.body_sha256 != context.body_sha256 or job_id not in {None, entry.job_id}:
        raise IdempotencyConflictError("this Idempotency-Key was used before with another request: use a new key")
    return entry.job_id


def remembering(decision: Decision[Job], context: AuditContext, now_ns: int) -> Decision[Job]:
    """Return the decision with a first step that also remembers the request's key, if it has one."""
    key, body = context.idempotency_key_sha256, context.body_sha256
    if key is None or body is None:
        return decision
    entry = IdempotencyEntry(
        tenant_id=context.tenant_id,
        actor_id=context.actor.id,
        route=context.http_route or "",
        key_sha256=key,
        body_sha256=body,
        job_id=decision.value.job_id,
        expires_ns=now_ns + REMEMBERED_NS,
    )
    first, *others = decision.steps
    step = msgspec.structs.replace(first, writes=(*first.writes, Remember(entry)))
    return msgspec.structs.replace(decision, steps=[step, *others])
