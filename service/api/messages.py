"""What clients send and get about jobs: the shapes of docs and OpenAPI, and how a job becomes one."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import quote

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from service.api.fields import SHA256, Actor, Cursor, Links, Sha256, SpanId, Tenant, Time, TraceId, Uuid
from service.api.texts import MAX_INTEGER, is_plain
from service.jobs.model import Content, Job, ParameterValue, Plan, Run, RunStatus, Status
from service.ports import Receipt
from telemetry.audit.chain import rfc3339_nanos

MAX_PARAMETERS = 64
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class CreateJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The template to run and its parameters."""

    template: Annotated[Name, Meta(description="The name of a template: see `GET /v1/templates`.")]
    parameters: Annotated[
        dict[Name, ParameterValue],
        Meta(max_length=MAX_PARAMETERS, description="A value for each parameter that has no default."),
    ] = {}

    def __post_init__(self) -> None:
        _require_plain("template", self.template)
        for name, value in self.parameters.items():
            _require_plain("the name of a parameter", name)
            if isinstance(value, str):
                _require_plain(f"parameter {name}", value)
            elif not -MAX_INTEGER <= value <= MAX_INTEGER:
                raise ValueError(f"parameter {name} is outside ±(2^53-1)")


class ConfirmJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The approval of a plan. `confirmed` false changes nothing; `run` false stops at `confirmed`."""

    confirmed: Annotated[bool, Meta(description="Whether the plan is approved.")]
    plan_sha256: Annotated[
        Annotated[str, Meta(max_length=128, extra_json_schema=SHA256)] | None,
        Meta(description="The hash of the plan that is approved; required with `confirmed`."),
    ] = None
    notes: Annotated[
        Annotated[str, Meta(max_length=4096)] | None, Meta(description="Why; the record holds the hash of it.")
    ] = None
    run: Annotated[bool, Meta(description="Whether the approval also puts the job on the queue.")] = True

    def __post_init__(self) -> None:
        _require_plain("plan_sha256", self.plan_sha256 or "")
        if not is_plain(self.notes or "", line_breaks=True):
            raise ValueError("notes must not hold control characters")


class NoMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """An object without members; no body at all says the same."""


class RunAnswer(Struct, frozen=True, kw_only=True):
    """One attempt of a job. `stderr_end` is null when it succeeded or is not known, and absent in listings of jobs."""

    number: Annotated[int, Meta(description="The number of the run, from 1.")]
    status: Annotated[RunStatus, Meta(description="How the run stands.")]
    worker_id: Annotated[Actor, Meta(description="The worker that carries it out.")]
    started_at: Annotated[Time, Meta(description="When the worker took the job.")]
    ended_at: Annotated[Time | None, Meta(description="When the run ended; null while it goes on.")]
    exit_code: Annotated[int | None, Meta(description="Of the command; null when it has none.")]
    duration_ms: Annotated[int | None, Meta(description="How long the command ran, in milliseconds.")]
    error_type: Annotated[
        str | None,
        Meta(
            description="Why it did not succeed: `exit`, `signal`, `timeout`, `memory`, `cancelled`, `lease_expired`, …"
        ),
    ]
    stderr_end: Annotated[
        str | UnsetType | None,
        Meta(description="The last 4 KiB of its standard error, if it did not succeed; absent in listings of jobs."),
    ] = UNSET
    trace_id: TraceId
    span_id: SpanId
    links: Annotated[Links, Meta(description="Where the job, its artifacts and its trace are.")]


class JobAnswer(Struct, frozen=True, kw_only=True):
    """A job. `runs` is absent in the rare answer to a change after which they could not be read."""

    id: Annotated[Uuid, Meta(description="The id of the job.")]
    template: Annotated[str, Meta(description="The name of its template.")]
    parameters: Annotated[
        Mapping[str, ParameterValue], Meta(description="Its parameters; sensitive ones as `hmac-sha256:…`.")
    ]
    status: Annotated[Status, Meta(description="The state of the job.")]
    version: Annotated[int, Meta(description="Counts the changes, from 1; the ETag.")]
    tenant_id: Tenant
    created_by: Annotated[Actor, Meta(description="The actor that created it.")]
    created_at: Annotated[Time, Meta(description="When it was created.")]
    updated_at: Annotated[Time, Meta(description="When this version was made.")]
    trace_id: TraceId
    plan: Annotated[Plan | None, Meta(description="Exactly what would run; null before the draft.")]
    runs: Annotated[
        Sequence[RunAnswer] | UnsetType,
        Meta(
            description="Its runs, first to last; absent in the rare answer to a change after which they are not known."
        ),
    ] = UNSET
    links: Annotated[Links, Meta(description="Where the job, its runs, its records and its trace are.")]
    audit: Annotated[
        Receipt | UnsetType, Meta(description="The receipt of the record of this change; absent in answers to looks.")
    ] = UNSET


class JobsAnswer(Struct, frozen=True):
    """One page of jobs, newest first."""

    jobs: Annotated[Sequence[JobAnswer], Meta(description="The jobs, newest first.")]
    next_cursor: Cursor


class RunsAnswer(Struct, frozen=True):
    """The runs of a job, first to last."""

    runs: Annotated[Sequence[RunAnswer], Meta(description="The runs, first to last.")]


class InputAnswer(Struct, frozen=True, kw_only=True):
    """An input as it was stored."""

    name: Annotated[str, Meta(description="The name of the input.")]
    size: Annotated[int, Meta(description="In bytes.")]
    sha256: Annotated[Sha256, Meta(description="SHA-256 of the bytes.")]
    job_id: Annotated[Uuid, Meta(description="The job that it belongs to.")]
    version: Annotated[int, Meta(description="The version of the job that this made; the ETag.")]
    links: Annotated[Links, Meta(description="Where the job and its trace are.")]
    audit: Annotated[Receipt, Meta(description="The receipt of the record of this change.")]


class ArtifactAnswer(Struct, frozen=True, kw_only=True):
    """A file that a run left behind."""

    name: Annotated[str, Meta(description="The name of the artifact, with the folder that it lay in.")]
    size: Annotated[int, Meta(description="In bytes.")]
    sha256: Annotated[Sha256, Meta(description="SHA-256 of the bytes.")]
    links: Annotated[Links, Meta(description="Where the bytes are.")]


class ArtifactsAnswer(Struct, frozen=True):
    """The artifacts of a run, by name."""

    artifacts: Annotated[Sequence[ArtifactAnswer], Meta(description="The artifacts, by name.")]


def job_answer(
    job: Job, runs: Sequence[Run] | None, receipt: Receipt | None = None, trace_url_template: str | None = None
) -> JobAnswer:
    """Return a job as clients see it; `runs` None when they are not known."""
    return JobAnswer(
        id=job.job_id,
        template=job.template,
        parameters=job.parameters,
        status=job.status,
        version=job.version,
        tenant_id=job.tenant_id,
        created_by=job.created_by,
        created_at=rfc3339_nanos(job.created_ns),
        updated_at=rfc3339_nanos(job.updated_ns),
        trace_id=job.trace_id,
        plan=job.plan,
        runs=UNSET if runs is None else [run_answer(run, trace_url_template) for run in runs],
        links={
            "self": f"/v1/jobs/{job.job_id}",
            "runs": f"/v1/jobs/{job.job_id}/runs",
            "audit": f"/v1/jobs/{job.job_id}/audit",
            **trace_link(job.trace_id, trace_url_template),
        },
        audit=receipt or UNSET,
    )


def in_listing(job: JobAnswer) -> JobAnswer:
    """Return a job without the ends of standard errors: a page of jobs can hold thousands of runs."""
    if job.runs is UNSET:
        return job
    return structs.replace(job, runs=[structs.replace(run, stderr_end=UNSET) for run in job.runs])


def run_answer(run: Run, trace_url_template: str | None) -> RunAnswer:
    """Return a run as clients see it."""
    trace_id, span_id = run.traceparent.split("-")[1:3]
    return RunAnswer(
        number=run.number,
        status=run.status,
        worker_id=run.worker_id,
        started_at=rfc3339_nanos(run.started_ns),
        ended_at=None if run.ended_ns is None else rfc3339_nanos(run.ended_ns),
        exit_code=run.exit_code,
        duration_ms=run.duration_ms,
        error_type=run.error_type,
        stderr_end=run.stderr_end,
        trace_id=trace_id,
        span_id=span_id,
        links={
            "job": f"/v1/jobs/{run.job_id}",
            "artifacts": f"/v1/jobs/{run.job_id}/runs/{run.number}/artifacts",
            **trace_link(trace_id, trace_url_template),
        },
    )


def artifact_answer(content: Content, folder: str) -> ArtifactAnswer:
    """Return an artifact as clients see it; `folder` is the path of the listing."""
    return ArtifactAnswer(
        name=content.name,
        size=content.size,
        sha256=content.sha256,
        links={"self": f"{folder}/{quote(content.name)}"},
    )


def trace_link(trace_id: str, trace_url_template: str | None) -> dict[str, str]:
    """Return the link to the trace backend, if one is set."""
    return {"trace": trace_url_template.replace("{trace_id}", trace_id)} if trace_url_template else {}


def _require_plain(what: str, text: str) -> None:
    if not is_plain(text):
        raise ValueError(f"{what} must not hold control characters")
