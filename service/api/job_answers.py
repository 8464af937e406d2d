"""What clients get about jobs, their runs, inputs and artifacts, and how a job becomes such an answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType, structs

from service.api.approval_answers import (
    ConfirmationAnswer,
    RejectionAnswer,
    confirmation_answer,
    rejection_answer,
)
from service.api.fields import (
    JOB,
    LIMITS,
    PLAN_SHA256,
    RECEIPT,
    ActorField,
    JobIdField,
    Links,
    NextCursorField,
    Sha256Field,
    SpanId,
    Tenant,
    Time,
    TraceId,
    about,
    example_of,
)
from service.api.request import ApiRequest
from service.jobs.model import Content, Job, ParameterValue, Plan, Run, RunStatus, Status
from service.ports import Receipt
from service.roles import ARTIFACT_READERS, has_one
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import KEY_ISSUER

# Of the shipped template `line-count`, so that what is shown is what is drafted.
_PLAN = Plan(
    argv=("wc", "-l", "--", "/etc/hosts"),
    environment={"LC_ALL": "C"},
    pass_environment=(),
    timeout_ms=30_000,
    max_attempts=3,
    retry_exit_codes=(),
    limits=LIMITS,
    inputs={},
    sha256=PLAN_SHA256,
    reads=("/etc", "/home", "/srv", "/tmp", "/var"),  # noqa: S108 - of the shipped template
)
_STDERR_END = "wc: /etc/hosts: Permission denied\n"
_RUN_LINKS = {"job": JOB, "artifacts": f"{JOB}/runs/1/artifacts"}
_JOB_LINKS = {"self": JOB, "runs": f"{JOB}/runs", "audit": f"{JOB}/audit"}


class RunAnswer(Struct, frozen=True, kw_only=True):
    """One attempt of a job. `stderr_end` is null when it succeeded or is not known.

    It is absent in listings of jobs, and for credentials that may not read artifacts.
    """

    number: Annotated[int, about("The number of the run, from 1.", 1)]
    status: Annotated[RunStatus, about("The state of the run.", "failed")]
    worker_id: Annotated[ActorField, about("The worker that carries it out.", "worker-4d6f")]
    started_at: Annotated[Time, about("When the worker took the job.")]
    ended_at: Annotated[
        Time | None, about("When the run ended; null before its end.", "2026-01-02T03:04:05.712345678Z")
    ]
    exit_code: Annotated[int | None, about("Of the command; null when it has none.", 1)]
    duration_ms: Annotated[int | None, about("How long the command ran, in milliseconds.", 33)]
    error_type: Annotated[
        str | None,
        about("Why it did not succeed: `exit`, `signal`, `timeout`, `memory`, `cancelled`, `lease_expired`, …", "exit"),
    ]
    stderr_end: Annotated[
        str | UnsetType | None,
        about(
            "The last 4 KiB of its standard error, if it did not succeed; absent in listings of jobs, and for "
            "credentials that may not read artifacts.",
            _STDERR_END,
        ),
    ] = UNSET
    trace_id: TraceId
    span_id: SpanId
    links: Annotated[Links, about("The paths of the job and its artifacts, and the address of its trace.", _RUN_LINKS)]


class JobAnswer(Struct, frozen=True, kw_only=True):
    """A job. `runs` is absent in the rare answer to a change after which they could not be read."""

    id: Annotated[JobIdField, about("The id of the job.")]
    template: Annotated[str, about("The name of its template.", "line-count")]
    parameters: Annotated[
        Mapping[str, ParameterValue],
        about("Its parameters; sensitive ones as `hmac-sha256:…`.", {"path": "/etc/hosts"}),
    ]
    status: Annotated[Status, about("The state of the job.", "failed")]
    version: Annotated[int, about("Counts the changes, from 1; the ETag.", 6)]
    tenant_id: Tenant
    created_by: Annotated[ActorField, about("The actor that created it.")]
    created_by_issuer: Annotated[
        str | None, about("The issuer of that actor; null when an older version made the job.", KEY_ISSUER)
    ]
    created_at: Annotated[Time, about("When it was created.")]
    updated_at: Annotated[Time, about("When this version was made.")]
    trace_id: TraceId
    plan: Annotated[Plan | None, about("Exactly what would run; null before the draft.", _PLAN)]
    confirmation: Annotated[
        ConfirmationAnswer | None, about("Who confirmed the plan, and what they wrote; null before it is confirmed.")
    ]
    rejection: Annotated[
        RejectionAnswer | None, about("Who rejected the plan, and why; null unless it is rejected.", None)
    ]
    runs: Annotated[
        Sequence[RunAnswer] | UnsetType,
        about("Its runs, first to last; absent in the rare answer to a change after which they are not known."),
    ] = UNSET
    links: Annotated[Links, about("The paths of the job, its runs and records; the address of its trace.", _JOB_LINKS)]
    audit: Annotated[
        Receipt | UnsetType, about("The receipt of the record of this change; absent in answers to reads.", RECEIPT)
    ] = UNSET


_LISTED = example_of(JobAnswer, absent={"audit", "stderr_end"})


class JobsAnswer(Struct, frozen=True):
    """One page of jobs, newest first."""

    jobs: Annotated[Sequence[JobAnswer], about("The jobs, newest first.", [_LISTED])]
    next_cursor: NextCursorField


class RunsAnswer(Struct, frozen=True):
    """The runs of a job, first to last."""

    runs: Annotated[Sequence[RunAnswer], about("The runs, first to last.")]


class InputAnswer(Struct, frozen=True, kw_only=True):
    """An input as it was stored."""

    name: Annotated[str, about("The name of the input.", "data.csv")]
    size: Annotated[int, about("In bytes.", 11)]
    sha256: Annotated[Sha256Field, about("SHA-256 of the bytes.")]
    job_id: Annotated[JobIdField, about("The job that it belongs to.")]
    version: Annotated[int, about("The version of the job that this made; the ETag.", 2)]
    links: Annotated[Links, about("The path of the job and the address of its trace.", {"job": JOB})]
    audit: Annotated[Receipt, about("The receipt of the record of this change.", RECEIPT)]


class ArtifactAnswer(Struct, frozen=True, kw_only=True):
    """A file that a run left behind."""

    name: Annotated[str, about("The name of the artifact, with the folder that it lay in.", "stdout")]
    size: Annotated[int, about("In bytes.", 11)]
    sha256: Annotated[Sha256Field, about("SHA-256 of the bytes.")]
    links: Annotated[Links, about("The path of the bytes.", {"self": f"{JOB}/runs/1/artifacts/stdout"})]


class ArtifactsAnswer(Struct, frozen=True):
    """The artifacts of a run, by name."""

    artifacts: Annotated[Sequence[ArtifactAnswer], about("The artifacts, by name.")]


def job_answer(request: ApiRequest, job: Job, runs: Sequence[Run] | None, receipt: Receipt | None = None) -> JobAnswer:
    """Return a job as clients see it; `runs` None when they are not known."""
    path = f"/v1/jobs/{job.job_id}"
    return JobAnswer(
        id=job.job_id,
        template=job.template,
        parameters=job.parameters,
        status=job.status,
        version=job.version,
        tenant_id=job.tenant_id,
        created_by=job.created_by,
        created_by_issuer=job.created_by_issuer,
        created_at=rfc3339_nanos(job.created_ns),
        updated_at=rfc3339_nanos(job.updated_ns),
        trace_id=job.trace_id,
        plan=job.plan,
        confirmation=confirmation_answer(job),
        rejection=rejection_answer(job),
        runs=UNSET if runs is None else [run_answer(request, run) for run in runs],
        links={"self": path, "runs": f"{path}/runs", "audit": f"{path}/audit", **request.trace_link(job.trace_id)},
        audit=receipt or UNSET,
    )


def listed_job(request: ApiRequest, job: Job, runs: Sequence[Run]) -> JobAnswer:
    """Return a job without the ends of standard errors: a page of jobs can hold thousands of runs."""
    listed = [structs.replace(run_answer(request, run), stderr_end=UNSET) for run in runs]
    return structs.replace(job_answer(request, job, ()), runs=listed)


def run_answer(request: ApiRequest, run: Run) -> RunAnswer:
    """Return a run as clients see it."""
    trace_id, span_id = run.traceparent.split("-")[1:3]
    path = f"/v1/jobs/{run.job_id}"
    return RunAnswer(
        number=run.number,
        status=run.status,
        worker_id=run.worker_id,
        started_at=rfc3339_nanos(run.started_ns),
        ended_at=None if run.ended_ns is None else rfc3339_nanos(run.ended_ns),
        exit_code=run.exit_code,
        duration_ms=run.duration_ms,
        error_type=run.error_type,
        stderr_end=run.stderr_end if has_one(request.exchange.credential.roles, *ARTIFACT_READERS) else UNSET,
        trace_id=trace_id,
        span_id=span_id,
        links={"job": path, "artifacts": f"{path}/runs/{run.number}/artifacts", **request.trace_link(trace_id)},
    )


def artifact_answer(content: Content, folder: str) -> ArtifactAnswer:
    """Return an artifact as clients see it; `folder` is the path of the listing."""
    return ArtifactAnswer(
        name=content.name,
        size=content.size,
        sha256=content.sha256,
        links={"self": f"{folder}/{quote(content.name)}"},
    )
