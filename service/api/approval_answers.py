"""What clients get about the confirmation and the rejection of a job's plan."""

from typing import Annotated

from msgspec import Struct

from service.api.fields import PLAN_SHA256, SHA256, ActorField, RecordId, Time, about
from service.jobs.model import Job
from telemetry.audit.chain import rfc3339_nanos


class ConfirmationAnswer(Struct, frozen=True, kw_only=True):
    """The confirmation of a plan. Where version 0.1.0 confirmed the job, only `by` and `plan_sha256` are known."""

    by: Annotated[ActorField, about("The actor that confirmed it.", "berta")]
    issuer: Annotated[str | None, about("Who vouches for the actor: `key` or the issuer of a token.", "key")]
    at: Annotated[Time | None, about("When: the time of the record.")]
    notes: Annotated[str | None, about("What the actor wrote; null if nothing.", "the path is right")]
    plan_sha256: Annotated[str, about("The hash of the plan that was confirmed.", PLAN_SHA256, **SHA256)]
    record_id: Annotated[RecordId | None, about("The record of the confirmation.")]


class RejectionAnswer(Struct, frozen=True, kw_only=True):
    """The rejection of a plan."""

    by: Annotated[ActorField, about("The actor that rejected it.", "berta")]
    issuer: Annotated[str | None, about("Who vouches for the actor: `key` or the issuer of a token.", "key")]
    at: Annotated[Time, about("When: the time of the record.")]
    reason: Annotated[str, about("Why.", "the path is wrong")]
    plan_sha256: Annotated[str, about("The hash of the plan that was rejected.", PLAN_SHA256, **SHA256)]
    record_id: Annotated[RecordId, about("The record of the rejection.")]


def confirmation_answer(job: Job) -> ConfirmationAnswer | None:
    """Return the confirmation of a job as clients see it; None when it was not confirmed."""
    given = job.confirmation
    if given is not None:
        return ConfirmationAnswer(
            by=given.by.id,
            issuer=given.by.issuer,
            at=rfc3339_nanos(given.at_ns),
            notes=given.notes,
            plan_sha256=given.plan_sha256,
            record_id=given.record_id,
        )
    if job.confirmed_by is None or job.plan is None:
        return None
    # A plan never changes, so the one that was confirmed is known.
    plan_sha256 = job.plan.sha256
    return ConfirmationAnswer(
        by=job.confirmed_by, issuer=None, at=None, notes=None, plan_sha256=plan_sha256, record_id=None
    )


def rejection_answer(job: Job) -> RejectionAnswer | None:
    """Return the rejection of a job as clients see it; None when it was not rejected."""
    given = job.rejection
    if given is None:
        return None
    return RejectionAnswer(
        by=given.by.id,
        issuer=given.by.issuer,
        at=rfc3339_nanos(given.at_ns),
        reason=given.reason,
        plan_sha256=given.plan_sha256,
        record_id=given.record_id,
    )
