"""The routes of jobs: create, look, draft, confirm, run, retry, cancel."""

import asyncio
from functools import partial
from typing import Final

from litestar import Response, post
from litestar.params import FromQuery, JSONBody

from service.api.documented import DOCUMENTED, Documented
from service.api.fields import IfMatch, JobIdPath
from service.api.messages import (
    ConfirmJob,
    CreateJob,
    JobAnswer,
    JobsAnswer,
    NoMembers,
    RunsAnswer,
    in_listing,
    job_answer,
    run_answer,
)
from service.api.methods import get
from service.api.parts import parts_of
from service.api.queries import Cursor, Limit, QueryText, QueryWait
from service.api.request import BODY, EVENT, ApiRequest, Jobs, Operations, exchange_of
from service.api.texts import version_of, wait_ms_of
from service.api.waiting import MAX_WAIT_MS
from service.errors import TryLaterError
from service.jobs.model import Job, JobId, Status
from service.operations.base import Committed, naming
from service.ports import JobFilter
from telemetry import names

_CHANGED: Final = Documented(answer="The job as it is now.", headers=("ETag",))


@post(
    "/v1/jobs",
    opt={
        EVENT: names.EVENT_JOB_CREATE,
        BODY: CreateJob,
        DOCUMENTED: Documented(
            answer="The job that was created.",
            headers=("ETag", "Location"),
            also={200: "The same key and body came before: this is the job it made."},
        ),
    },
    status_code=201,
)
async def create_job(request: ApiRequest, operations: Operations, data: JSONBody[CreateJob]) -> Response[JobAnswer]:
    """Create a job from a template. The same Idempotency-Key and body answers 200 with the job made before."""
    done = await operations.create(data.template, data.parameters)
    return await _changed(request, done, status=200 if done.is_replay else 201)


@get("/v1/jobs")
async def list_jobs(
    request: ApiRequest,
    jobs: Jobs,
    status: FromQuery[Status | None] = None,
    template: QueryText = None,
    created_by: QueryText = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> JobsAnswer:
    """List the jobs of the tenant, newest first."""
    where = JobFilter(status=status, template=template, created_by=created_by)
    found, next_cursor = await jobs.jobs(where, cursor, limit)
    url = parts_of(request.scope).settings.trace_url_template
    return JobsAnswer([in_listing(job_answer(job, runs, None, url)) for job, runs in found], next_cursor)


@get("/v1/jobs/{job_id:str}", opt={DOCUMENTED: Documented(answer="The job.", headers=("ETag",))})
async def get_job(request: ApiRequest, jobs: Jobs, job_id: JobIdPath, wait: QueryWait = None) -> Response[JobAnswer]:
    """Return a job; its ETag is its version. With `wait`, when it has come to a final state or the time is over."""
    jobs.require_allowed()
    wait_ms = 0 if wait is None else wait_ms_of(wait, MAX_WAIT_MS)
    if wait_ms:
        credential = exchange_of(request.scope).credential
        actor = (credential.tenant_id, credential.actor.id)
        is_final = partial(jobs.is_final, job_id)
        await parts_of(request.scope).waits.until_final(JobId(job_id), actor, wait_ms / 1000, request.receive, is_final)
    job, runs = await jobs.job(job_id)
    answer = job_answer(job, runs, None, parts_of(request.scope).settings.trace_url_template)
    return Response(answer, headers={"ETag": f'"{job.version}"'})


@get("/v1/jobs/{job_id:str}/runs")
async def list_runs(request: ApiRequest, jobs: Jobs, job_id: JobIdPath) -> RunsAnswer:
    """Return the runs of a job, first to last."""
    url = parts_of(request.scope).settings.trace_url_template
    return RunsAnswer([run_answer(run, url) for run in await jobs.runs(job_id)])


@post(
    "/v1/jobs/{job_id:str}/draft",
    opt={EVENT: names.EVENT_JOB_DRAFT, BODY: NoMembers, DOCUMENTED: _CHANGED},
    status_code=200,
)
async def draft_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Render the plan of a job: exactly what would run."""
    return await _changed(request, await operations.draft(job_id, version_of(if_match)))


@post(
    "/v1/jobs/{job_id:str}/confirm",
    opt={EVENT: names.EVENT_JOB_CONFIRM, BODY: ConfirmJob, DOCUMENTED: _CHANGED},
    status_code=200,
)
async def confirm_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, data: JSONBody[ConfirmJob], if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Approve the plan with this hash and, unless `run` is false, trigger the run."""
    done = await operations.confirm(
        job_id,
        confirmed=data.confirmed,
        plan_sha256=data.plan_sha256,
        notes=data.notes,
        run=data.run,
        if_match=version_of(if_match),
    )
    return await _changed(request, done)


@post(
    "/v1/jobs/{job_id:str}/run",
    opt={EVENT: names.EVENT_JOB_RUN_TRIGGER, BODY: NoMembers, DOCUMENTED: _CHANGED},
    status_code=200,
)
async def run_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Put a job on the queue."""
    return await _changed(request, await operations.run(job_id, version_of(if_match)))


@post(
    "/v1/jobs/{job_id:str}/retry",
    opt={EVENT: names.EVENT_JOB_RETRY, BODY: NoMembers, DOCUMENTED: _CHANGED},
    status_code=200,
)
async def retry_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Put a failed job on the queue again."""
    return await _changed(request, await operations.retry(job_id, version_of(if_match)))


@post(
    "/v1/jobs/{job_id:str}/cancel",
    opt={EVENT: names.EVENT_JOB_CANCEL, BODY: NoMembers, DOCUMENTED: _CHANGED},
    status_code=200,
)
async def cancel_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Cancel a job that is not final."""
    return await _changed(request, await operations.cancel(job_id, version_of(if_match)))


async def _changed(request: ApiRequest, done: Committed[Job], status: int = 200) -> Response[JobAnswer]:
    job, parts = done.value, parts_of(request.scope)
    with naming(done.receipt):
        try:
            runs = await asyncio.to_thread(parts.reads.runs, job.job_id) if job.run else ()
        except TryLaterError:
            # The change is committed: an answer that says "nothing changed" would be wrong.
            runs = None
    headers = {"ETag": f'"{job.version}"'}
    if status == 201:
        headers["Location"] = f"/v1/jobs/{job.job_id}"
    answer = job_answer(job, runs, done.receipt, parts.settings.trace_url_template)
    return Response(answer, status_code=status, headers=headers)
