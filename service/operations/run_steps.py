"""The steps by which runs begin and end, as values: what is recorded of them, and what is written."""

import hashlib
from collections.abc import Sequence

import msgspec

from service.jobs.model import Content, Job, Run, RunStatus
from service.operations.base import Step
from service.operations.steps import status_change
from service.ports import EndRun, PutArtifact, StartRun, Write
from service.records import Fact, change
from telemetry import names
from telemetry.audit.record import Result, Target


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended; `error_type` None means success. Artifacts are pairs of name and bytes.

    `stderr_end` is the end of its standard error with sensitive values masked; it is kept unless the run succeeded.
    """

    error_type: str | None
    reason: str | None
    exit_code: int | None
    duration_ms: int
    is_retryable: bool
    artifacts: Sequence[tuple[str, bytes]] = ()
    stderr_end: str | None = None


def begun(before: Job, after: Job, run: Run, lease_until_ns: int) -> Step:
    """Return the step of a claim."""
    fact = Fact(
        event_name=names.EVENT_JOB_STATUS_TRANSITION,
        target=Target("job", after.job_id, after.version),
        result=Result.SUCCESS,
        changes={**status_change(before, after), "run": change(before.run or None, after.run)},
        job=after,
        run=run.number,
    )
    return Step(fact=fact, job=after, writes=(StartRun(run, lease_until_ns),))


def closed(before: Job, after: Job, run: Run, ended: Ended, *, status: RunStatus, result: Result, now_ns: int) -> Step:
    """Return the step that closes a run, with its artifacts.

    When `after` is `before`, the job has moved on: the record states no version, because the step makes none.
    """
    is_change = after is not before
    changes = status_change(before, after) if is_change else {}
    changes["duration_ms"] = change(None, ended.duration_ms)
    if ended.exit_code is not None:
        changes["exit_code"] = change(None, ended.exit_code)
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
    return Step(fact=fact, job=after if is_change else None, writes=(EndRun(end), *_artifacts(end, ended)))


def _artifacts(run: Run, ended: Ended) -> tuple[Write, ...]:
    return tuple(
        PutArtifact(run, Content(name, len(payload), hashlib.sha256(payload).hexdigest()), payload)
        for name, payload in ended.artifacts
    )
