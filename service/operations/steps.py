"""The steps by which operations change jobs, as values: what is recorded, and what is written with it."""

from collections.abc import Mapping

from service.jobs.model import Job, Run
from service.operations.base import Step
from service.ports import Write
from service.records import Fact, change
from telemetry.audit.canonical import Value
from telemetry.audit.record import Result, Target
from telemetry.tracing import AuditedSpan


def status_change(before: Job, after: Job) -> dict[str, Value]:
    """Return the change of a job's status as `auditrace.changes` has it."""
    return {"status": change(before.status.value, after.status.value)}


def changed(
    event_name: str,
    job: Job,
    changes: Mapping[str, Value],
    *,
    writes: tuple[Write, ...] = (),
    span: AuditedSpan | None = None,
    record_id: str | None = None,
) -> Step:
    """Return the step that makes this version of a job; its record states the version.

    Args:
        event_name: what is done.
        job: the version that is made.
        changes: what differs from the version before.
        writes: what is written beside the job.
        span: the one it takes place in; None for that of the operation.
        record_id: of the record, where something else has to name it already.
    """
    fact = Fact(
        event_name=event_name,
        target=Target("job", job.job_id, job.version),
        result=Result.SUCCESS,
        changes=changes,
        job=job,
    )
    return Step(fact=fact, job=job, writes=writes, span=span, record_id=record_id)


def noop(event_name: str, job: Job, run: Run | None = None) -> Step:
    """Return the step of an operation that found everything as it asks for: a record, and nothing else."""
    fact = Fact(
        event_name=event_name,
        target=Target("job", job.job_id),
        result=Result.NOOP,
        job=job,
        run=run.number if run else None,
    )
    return Step(fact=fact)
