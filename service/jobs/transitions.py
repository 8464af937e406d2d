"""The allowed changes of a job, as pure functions from a job to its next version.

Each returns the changed job, or None when there is nothing to change (a no-op), or raises a `RefusedError`.
"""

from collections.abc import Callable

import msgspec

from service.errors import ForbiddenError, PlanMismatchError, TransitionRefusedError
from service.jobs.model import Confirmation, Job, Plan, Rejection, RunRequest, Status

_BEYOND_CONFIRMED = frozenset({Status.CONFIRMED, Status.QUEUED, Status.RUNNING})


def accept_input(job: Job, now_ns: int) -> Job:
    """Make a version for a new or replaced input; only before the draft, because the plan covers the inputs."""
    if job.status is not Status.CREATED:
        raise TransitionRefusedError(f"inputs are accepted before the draft; the job is {job.status}")
    return _next(job, now_ns)


def draft(job: Job, render: Callable[[], Plan], now_ns: int) -> Job | None:
    """`created → draft_ready` with the plan that a confirmation names; it is rendered only when this is allowed."""
    if job.status is Status.DRAFT_READY:
        return None
    if job.status is not Status.CREATED:
        raise TransitionRefusedError(f"a draft is made of a created job; the job is {job.status}")
    return _next(job, now_ns, status=Status.DRAFT_READY, plan=render())


def may_decide(job: Job, *, is_creator: bool, distinct_confirmer: bool) -> bool:
    """True when there is or was something to confirm or reject, and the four-eyes rule does not exclude the actor."""
    return job.plan is not None and not (distinct_confirmer and is_creator)


def confirm(job: Job, confirmation: Confirmation, *, is_creator: bool, distinct_confirmer: bool) -> Job | None:
    """`draft_ready → confirmed`, for exactly the plan that the confirmation names.

    Args:
        job: the present version.
        confirmation: what would be stored with the job.
        is_creator: whether the confirmer created the job.
        distinct_confirmer: whether the template asks for another confirmer than the creator.
    """
    if distinct_confirmer and is_creator:
        raise ForbiddenError(
            "the creator of this job may not confirm it, not even with another key or token: ask another approver"
        )
    if job.status in _BEYOND_CONFIRMED and job.confirmed_by is not None:
        _require_plan(job, confirmation.plan_sha256)
        return None
    if job.status is not Status.DRAFT_READY:
        raise TransitionRefusedError(f"only a draft can be confirmed; the job is {job.status}")
    _require_plan(job, confirmation.plan_sha256)
    changed = {"confirmed_by": confirmation.by.id, "confirmation": confirmation}
    return _next(job, confirmation.at_ns, status=Status.CONFIRMED, **changed)


def reject(job: Job, rejection: Rejection, *, is_creator: bool, distinct_confirmer: bool) -> Job | None:
    """`draft_ready | confirmed → rejected`, for exactly the plan that the rejection names.

    Args:
        job: the present version.
        rejection: what would be stored with the job.
        is_creator: whether the rejecter created the job.
        distinct_confirmer: whether the template asks for another confirmer than the creator.
    """
    if distinct_confirmer and is_creator:
        raise ForbiddenError(
            "the creator of this job may not reject it, not even with another key or token: cancel it instead"
        )
    if job.status not in {Status.DRAFT_READY, Status.CONFIRMED, Status.REJECTED}:
        raise TransitionRefusedError(f"only a draft or a confirmed job can be rejected; the job is {job.status}")
    _require_plan(job, rejection.plan_sha256)
    if job.status is Status.REJECTED:
        return None
    return _next(job, rejection.at_ns, status=Status.REJECTED, rejection=rejection)


def trigger(job: Job, request: RunRequest, *, requires_confirmation: bool, now_ns: int) -> Job | None:
    """`confirmed → queued`, or `draft_ready → queued` when the template needs no confirmation."""
    if job.status in {Status.QUEUED, Status.RUNNING}:
        return None
    if job.status is Status.DRAFT_READY and requires_confirmation:
        raise TransitionRefusedError("this template requires a confirmation before the run")
    if job.status not in {Status.CONFIRMED, Status.DRAFT_READY}:
        advice = ": make its draft first" if job.status is Status.CREATED else ""
        raise TransitionRefusedError(f"only a confirmed job, or a draft, can be run; the job is {job.status}{advice}")
    return _enqueue(job, request, _max_attempts(job), now_ns, not_before_ns=now_ns)


def retry(job: Job, request: RunRequest, *, requires_confirmation: bool, now_ns: int) -> Job | None:
    """`failed → queued`, with all attempts again available."""
    if job.status in {Status.QUEUED, Status.RUNNING}:
        return None
    if job.status is not Status.FAILED:
        raise TransitionRefusedError(f"only a failed job can be retried; the job is {job.status}")
    if requires_confirmation and job.confirmed_by is None:
        raise TransitionRefusedError("this template now requires a confirmation: create the job again")
    return _enqueue(job, request, _max_attempts(job), now_ns, not_before_ns=now_ns)


def cancel(job: Job, now_ns: int) -> Job | None:
    """Any state that is not final → `cancelled`; the worker kills the running process group."""
    if job.status is Status.CANCELLED:
        return None
    if job.status.is_final:
        raise TransitionRefusedError(f"the job is {job.status}: there is nothing to cancel")
    return _next(job, now_ns, status=Status.CANCELLED)


def claim(job: Job, now_ns: int) -> Job:
    """`queued → running`: the intent, which is committed before the command starts."""
    if job.status is not Status.QUEUED:
        raise TransitionRefusedError(f"only a queued job can be claimed; the job is {job.status}")
    return _next(job, now_ns, status=Status.RUNNING, run=job.run + 1, attempts_left=job.attempts_left - 1)


def succeed(job: Job, now_ns: int) -> Job:
    """`running → succeeded`."""
    _require_running(job)
    return _next(job, now_ns, status=Status.SUCCEEDED)


def fail(job: Job, request: RunRequest, *, is_retryable: bool, not_before_ns: int, now_ns: int) -> Job:
    """`running → queued` if attempts are left and the failure is retryable, else `running → failed`."""
    _require_running(job)
    if is_retryable and job.attempts_left > 0:
        return _enqueue(job, request, job.attempts_left, now_ns, not_before_ns=not_before_ns)
    return _next(job, now_ns, status=Status.FAILED)


def release(job: Job, request: RunRequest, now_ns: int) -> Job:
    """`running → queued` because the worker stops; the attempt does not count."""
    _require_running(job)
    return _enqueue(job, request, job.attempts_left + 1, now_ns, not_before_ns=now_ns)


def _require_running(job: Job) -> None:
    if job.status is not Status.RUNNING:
        raise TransitionRefusedError(f"the job is {job.status}, not running")


def _require_plan(job: Job, plan_sha256: str) -> None:
    if job.plan is None or job.plan.sha256 != plan_sha256:
        raise PlanMismatchError("plan_sha256 is not the hash of this job's plan: fetch the job and look at its plan")


def _max_attempts(job: Job) -> int:
    if job.plan is None:
        raise TransitionRefusedError("the job has no plan yet: make a draft first")
    return job.plan.max_attempts


def _enqueue(job: Job, request: RunRequest, attempts: int, now_ns: int, *, not_before_ns: int) -> Job:
    return _next(
        job, now_ns, status=Status.QUEUED, request=request, attempts_left=attempts, not_before_ns=not_before_ns
    )


def _next(job: Job, now_ns: int, **changed: object) -> Job:
    # After a clock steps back, a version must not look older than the one before.
    return msgspec.structs.replace(job, version=job.version + 1, updated_ns=max(now_ns, job.updated_ns), **changed)
