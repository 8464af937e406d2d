"""What clients send and get about jobs: the shapes of docs and OpenAPI, and how a job becomes one."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import quote

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from service.api.texts import MAX_INTEGER, is_plain
from service.jobs.model import Content, Job, ParameterValue, Plan, Run
from service.ports import Receipt
from telemetry.audit.chain import rfc3339_nanos

MAX_PARAMETERS = 64
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class CreateJob(Struct, frozen=True, forbid_unknown_fields=True):
    """The template to run and its parameters."""

    template: Name
    parameters: Annotated[dict[Name, ParameterValue], Meta(max_length=MAX_PARAMETERS)] = {}

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

    confirmed: bool
    plan_sha256: Annotated[str, Meta(max_length=128)] | None = None
    notes: Annotated[str, Meta(max_length=4096)] | None = None
    run: bool = True

    def __post_init__(self) -> None:
        _require_plain("plan_sha256", self.plan_sha256 or "")
        if not is_plain(self.notes or "", line_breaks=True):
            raise ValueError("notes must not hold control characters")


class NoMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """An object without members; no body at all says the same."""


class RunAnswer(Struct, frozen=True, kw_only=True):
    """One attempt of a job. `stderr_end` is null when it succeeded or is not known, and absent in listings of jobs."""

    number: int
    status: str
    worker_id: str
    started_at: str
    ended_at: str | None
    exit_code: int | None
    duration_ms: int | None
    error_type: str | None
    stderr_end: str | UnsetType | None = UNSET
    trace_id: str
    span_id: str
    links: Mapping[str, str]


class JobAnswer(Struct, frozen=True, kw_only=True):
    """A job. `runs` is absent in the rare answer to a change after which they could not be read."""

    id: str
    template: str
    parameters: Mapping[str, ParameterValue]
    status: str
    version: int
    tenant_id: str
    created_by: str
    created_at: str
    updated_at: str
    trace_id: str
    plan: Plan | None
    runs: Sequence[RunAnswer] | UnsetType = UNSET
    links: Mapping[str, str]
    audit: Receipt | UnsetType = UNSET


class JobsAnswer(Struct, frozen=True):
    """One page of jobs, newest first."""

    jobs: Sequence[JobAnswer]
    next_cursor: str | None


class RunsAnswer(Struct, frozen=True):
    """The runs of a job, first to last."""

    runs: Sequence[RunAnswer]


class InputAnswer(Struct, frozen=True, kw_only=True):
    """An input as it was stored."""

    name: str
    size: int
    sha256: str
    job_id: str
    version: int
    links: Mapping[str, str]
    audit: Receipt


class ArtifactAnswer(Struct, frozen=True, kw_only=True):
    """A file that a run left behind."""

    name: str
    size: int
    sha256: str
    links: Mapping[str, str]


class ArtifactsAnswer(Struct, frozen=True):
    """The artifacts of a run, by name."""

    artifacts: Sequence[ArtifactAnswer]


def job_answer(
    job: Job, runs: Sequence[Run] | None, receipt: Receipt | None = None, trace_url_template: str | None = None
) -> JobAnswer:
    """Return a job as clients see it; `runs` None when they are not known."""
    return JobAnswer(
        id=job.job_id,
        template=job.template,
        parameters=job.parameters,
        status=job.status.value,
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
        status=run.status.value,
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
