"""Decisions of operations as values: the steps that change jobs and runs, each with its fact and its writes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from service.jobs.model import Content, Job, Run, RunStatus, Status
from service.ports import EndRun, PutArtifact, Write
from service.records import Fact, change
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.record import Result, Target
from telemetry.tracing import AuditedSpan

T = TypeVar("T")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an operation: its fact, and the rows that are written with it. `job` None changes no job."""

    fact: Fact
    job: Job | None = None
    writes: tuple[Write, ...] = ()
    span: AuditedSpan | None = None
    """The span of the step; None is the span of the operation."""
    record_id: str | None = None


class Decision(msgspec.Struct, Generic[T], frozen=True):
    """The decision of an operation: the steps to save, in order, and its result.

    `spans` are spans that hold no record and end with the commit.
    """

    steps: Sequence[Step]
    value: T
    is_replay: bool = False
    spans: Sequence[AuditedSpan] = ()


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended; `error_type` None means success. Artifacts are pairs of name and bytes.

    `exit_code`, or the name of the `signal` that ended the command, is None when it did not start or its end was not
    seen. The sizes of the streams are those before they were cut.

    `stderr_end` is the end of its standard error with sensitive values masked; it is kept unless the run succeeded.
    """

    error_type: str | None
    reason: str | None
    exit_code: int | None
    duration_ms: int
    is_retryable: bool
    signal: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    peak_memory_bytes: int | None = None
    artifacts: Sequence[tuple[str, bytes]] = ()
    stderr_end: str | None = None


def status_change(before: Job, after: Job) -> dict[str, Value]:
    """Return the change of a job's status, in the form of `auditrace.changes`."""
    return {"status": change(before.status.value, after.status.value)}


def content_change(before: Content | None, after: Content) -> dict[str, Value]:
    """Return the change of an input or artifact, in the form of `auditrace.changes`."""
    known = msgspec.structs.asdict(before) if before else {}
    return {field: change(known.get(field), value) for field, value in msgspec.structs.asdict(after).items()}


def changed(
    event_name: str,
    job: Job,
    changes: Mapping[str, Value],
    *,
    run: Run | None = None,
    writes: tuple[Write, ...] = (),
    span: AuditedSpan | None = None,
    record_id: str | None = None,
    isolation: str | None = None,
) -> Step:
    """Return the step that makes this version of a job; its record states the version.

    Args:
        event_name: the event of the record.
        job: the new version.
        changes: the differences from the version before.
        run: the run that the record states.
        writes: the rows that are written in addition to the job.
        span: the span of the step; None is the span of the operation.
        record_id: the id of the record, where another value names it already.
        isolation: what keeps the run from the service, where it begins.
    """
    fact = Fact(
        event_name=event_name,
        target=Target("job", job.job_id, job.version),
        result=Result.SUCCESS,
        changes=changes,
        job=job,
        run=run.number if run else None,
        isolation=isolation,
    )
    return Step(fact=fact, job=job, writes=writes, span=span, record_id=record_id)


def noop(event_name: str, job: Job, run: Run | None = None) -> Step:
    """Return the step of an operation that has nothing to change: it makes a record only."""
    fact = Fact(
        event_name=event_name,
        target=Target("job", job.job_id),
        result=Result.NOOP,
        job=job,
        run=run.number if run else None,
    )
    return Step(fact=fact)


def moved(
    event_name: str,
    before: Job,
    after: Job | None,
    more: Mapping[str, Value] | None = None,
    *,
    span: AuditedSpan | None = None,
    record_id: str | None = None,
) -> Decision[Job]:
    """Return the decision to move a job to another status; `after` None is a no-op.

    Args:
        event_name: the event of the record.
        before: the present version.
        after: the new version.
        more: the changes that are recorded in addition to the status.
        span: the span of the step; None is the span of the operation.
        record_id: the id of the record, where another value names it already.
    """
    if after is None:
        return Decision([noop(event_name, before)], before)
    changes = {**status_change(before, after), **(more or {})}
    return Decision([changed(event_name, after, changes, span=span, record_id=record_id)], after)


def stating(
    decision: Decision[T], *, reason: str | None = None, notes: str | None = None, plan: str | None = None
) -> Decision[T]:
    """Return the decision whose first record also states these texts."""
    first, *others = decision.steps
    fact = msgspec.structs.replace(first.fact, reason=reason, notes=notes, plan=plan)
    return msgspec.structs.replace(decision, steps=[msgspec.structs.replace(first, fact=fact), *others])


def attempt_change(before: Job, after: Job) -> dict[str, Mapping[str, Value]]:
    """Return the change of a job's attempt, from 1 to the plan's `max_attempts`, in the form of `auditrace.changes`.

    `from` is the attempt that ended, and `to` the one that runs now or comes next.
    """
    if after.plan is None:
        return {}
    ended = after.plan.max_attempts - before.attempts_left if before.status is not Status.QUEUED else None
    follows = after.status in {Status.QUEUED, Status.RUNNING}
    next_one = after.plan.max_attempts - after.attempts_left + (after.status is Status.QUEUED)
    return {"attempt": change(ended, next_one if follows else None)}


def closed(
    before: Job,
    after: Job,
    run: Run,
    ended: Ended,
    *,
    status: RunStatus,
    result: Result,
    now_ns: int,
    more: Mapping[str, Value] | None = None,
) -> Step:
    """Return the step that closes a run, with its artifacts.

    When `after` is `before`, the step makes no version of the job, so its record states none. `more` are changes that
    are recorded in addition to the status, the attempt and the end.
    """
    is_change = after is not before
    contents = [Content(name, len(payload), hashlib.sha256(payload).hexdigest()) for name, payload in ended.artifacts]
    changes = status_change(before, after) if is_change else {}
    changes |= {**_end_changes(ended, contents), **attempt_change(before, after), **(more or {})}
    fact = Fact(
        event_name=names.EVENT_JOB_STATUS_TRANSITION,
        target=Target("job", after.job_id, after.version if is_change else None),
        result=result,
        changes=changes,
        reason=ended.reason,
        error_type=ended.error_type,
        job=after,
        run=run.number,
    )
    end = msgspec.structs.replace(
        run,
        status=status,
        ended_ns=now_ns,
        exit_code=ended.exit_code,
        duration_ms=ended.duration_ms,
        error_type=ended.error_type,
        stderr_end=None if status is RunStatus.SUCCEEDED else ended.stderr_end,
    )
    artifacts = [
        PutArtifact(end, content, payload) for content, (_, payload) in zip(contents, ended.artifacts, strict=True)
    ]
    return Step(fact=fact, job=after if is_change else None, writes=(EndRun(end), *artifacts))


def _end_changes(ended: Ended, contents: Sequence[Content]) -> dict[str, Value]:
    known: dict[str, Value | None] = {
        "duration_ms": ended.duration_ms,
        "exit_code": ended.exit_code,
        "signal": ended.signal,
        "stdout_bytes": ended.stdout_bytes,
        "stderr_bytes": ended.stderr_bytes,
        "peak_memory_bytes": ended.peak_memory_bytes,
        "artifacts": {content.name: content.sha256 for content in contents} or None,
    }
    return {name: change(None, value) for name, value in known.items() if value is not None}
