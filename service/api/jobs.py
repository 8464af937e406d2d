"""The routes of jobs: create, read, draft, confirm, reject, run, retry, cancel, and the records of a job."""

import asyncio
from functools import partial
from typing import Annotated, Final

from litestar import Response, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, QueryParameter

from service.api.audit_answers import RecordsAnswer, records_answer
from service.api.bodies import ConfirmJob, CreateJob, GivenReason, NoMembers, RejectJob
from service.api.fields import IfMatch, JobIdPath, sends
from service.api.job_answers import JobAnswer, JobsAnswer, RunsAnswer, job_answer, listed_job, run_answer
from service.api.problems import refusals
from service.api.queries import Cursor, Limit, Wait, text
from service.api.request import ApiRequest, AuditReads, Jobs, Operations
from service.api.routing import BODY, EVENT, get
from service.api.texts import version_of, wait_ms_of
from service.api.waiting import MAX_WAIT_MS
from service.errors import TryLaterError
from service.jobs.model import Job, JobId, Status
from service.operations.base import Committed, naming
from service.ports import JobFilter
from telemetry import names

_change: Final = partial(
    post,
    status_code=200,
    response_description="The job as it is now.",
    response_headers=sends("ETag"),
    responses=refusals(403, 404, 409, 412, 413, 415),
)


@post(
    "/v1/jobs",
    opt={EVENT: names.EVENT_JOB_CREATE, BODY: CreateJob},
    response_description="The job that was created.",
    response_headers=sends("ETag", "Location"),
    responses={
        200: ResponseSpec(
            JobAnswer,
            description="The same key and body came before: this is the job that was created then.",
            generate_examples=False,
        ),
        **refusals(403, 409, 413, 415),
    },
)
async def create_job(request: ApiRequest, operations: Operations, data: JSONBody[CreateJob]) -> Response[JobAnswer]:
    """Create a job from a template. The same Idempotency-Key and body answers 200 with the job created before."""
    done = await operations.create(data.template, data.parameters)
    return await _changed(request, done, status=200 if done.is_replay else 201)


@get("/v1/jobs", responses=refusals(403))
async def list_jobs(
    request: ApiRequest,
    jobs: Jobs,
    status: Annotated[Status | None, QueryParameter(description="The state that the jobs are in.")] = None,
    template: Annotated[str | None, text("The template that the jobs are made from.")] = None,
    created_by: Annotated[str | None, text("The actor that created the jobs.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> JobsAnswer:
    """List the jobs of the tenant, newest first."""
    where = JobFilter(status=status, template=template, created_by=created_by)
    found, next_cursor = await jobs.jobs(where, cursor, limit)
    return JobsAnswer([listed_job(request, job, runs) for job, runs in found], next_cursor)


@get(
    "/v1/jobs/{job_id:str}",
    response_description="The job.",
    response_headers=sends("ETag"),
    responses=refusals(403, 404),
)
async def get_job(request: ApiRequest, jobs: Jobs, job_id: JobIdPath, wait: Wait = None) -> Response[JobAnswer]:
    """Return a job; its ETag is its version. With `wait`, return it when its state is final or the time is over."""
    jobs.require_allowed()
    wait_ms = 0 if wait is None else wait_ms_of(wait, MAX_WAIT_MS)
    if wait_ms:
        credential = request.exchange.credential
        actor = (credential.tenant_id, credential.actor.issuer, credential.actor.id)
        is_final = partial(jobs.is_final, job_id)
        await request.parts.waits.until_final(JobId(job_id), actor, wait_ms / 1000, request.receive, is_final)
    job, runs = await jobs.job(job_id)
    return Response(job_answer(request, job, runs), headers={"ETag": f'"{job.version}"'})


@get("/v1/jobs/{job_id:str}/runs", responses=refusals(403, 404))
async def list_runs(request: ApiRequest, jobs: Jobs, job_id: JobIdPath) -> RunsAnswer:
    """Return the runs of a job, first to last."""
    return RunsAnswer([run_answer(request, run) for run in await jobs.runs(job_id)])


@_change("/v1/jobs/{job_id:str}/draft", opt={EVENT: names.EVENT_JOB_DRAFT, BODY: NoMembers})
async def draft_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Render the plan of a job: exactly what would run."""
    return await _changed(request, await operations.draft(job_id, version_of(if_match)))


@_change("/v1/jobs/{job_id:str}/confirm", opt={EVENT: names.EVENT_JOB_CONFIRM, BODY: ConfirmJob})
async def confirm_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, data: JSONBody[ConfirmJob], if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Approve the plan with this hash and, unless `run` is false, trigger the run; or reject it (`confirmed` false)."""
    version, plan = version_of(if_match), data.plan_sha256
    if data.confirmed:
        done = await operations.confirm(job_id, plan_sha256=plan, notes=data.notes, run=data.run, if_match=version)
    else:
        done = await operations.reject(job_id, reason=data.notes, plan_sha256=plan, if_match=version, member="notes")
    return await _changed(request, done)


@_change("/v1/jobs/{job_id:str}/reject", opt={EVENT: names.EVENT_JOB_REJECT, BODY: RejectJob})
async def reject_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, data: JSONBody[RejectJob], if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Reject the plan of a job for good: it cannot be confirmed or run any more."""
    version = version_of(if_match)
    done = await operations.reject(job_id, reason=data.reason, plan_sha256=data.plan_sha256, if_match=version)
    return await _changed(request, done)


@_change("/v1/jobs/{job_id:str}/run", opt={EVENT: names.EVENT_JOB_RUN_TRIGGER, BODY: NoMembers})
async def run_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Put a job on the queue."""
    return await _changed(request, await operations.run(job_id, version_of(if_match)))


@_change("/v1/jobs/{job_id:str}/retry", opt={EVENT: names.EVENT_JOB_RETRY, BODY: GivenReason})
async def retry_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Put a failed job on the queue again."""
    version, reason = version_of(if_match), await _reason_of(request)
    return await _changed(request, await operations.retry(job_id, version, reason))


@_change("/v1/jobs/{job_id:str}/cancel", opt={EVENT: names.EVENT_JOB_CANCEL, BODY: GivenReason})
async def cancel_job(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, if_match: IfMatch = None
) -> Response[JobAnswer]:
    """Cancel a job that is not final."""
    version, reason = version_of(if_match), await _reason_of(request)
    return await _changed(request, await operations.cancel(job_id, version, reason))


@get("/v1/jobs/{job_id:str}/audit", opt={EVENT: names.EVENT_AUDIT_READ}, responses=refusals(403, 404))
async def get_job_trail(
    request: ApiRequest, reading: AuditReads, job_id: JobIdPath, cursor: Cursor = None, limit: Limit = 100
) -> RecordsAnswer:
    """List the records of a job, newest first. The read is recorded too."""
    return records_answer(request, await reading.of_job(job_id, cursor, limit))


async def _reason_of(request: ApiRequest) -> str | None:
    # Read here, because Litestar takes an empty body for a missing one.
    return (await request.json()).reason if await request.body() else None


async def _changed(request: ApiRequest, done: Committed[Job], status: int = 200) -> Response[JobAnswer]:
    job = done.value
    with naming(done.receipt):
        try:
            runs = await asyncio.to_thread(request.parts.reads.runs, job.job_id) if job.run else ()
        except TryLaterError:
            # The change is committed: an answer that says "nothing changed" would be wrong.
            runs = None
    headers = {"ETag": f'"{job.version}"'}
    if status == 201:
        headers["Location"] = f"/v1/jobs/{job.job_id}"
    return Response(job_answer(request, job, runs, done.receipt), status_code=status, headers=headers)
