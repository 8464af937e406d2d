"""Reads of jobs, of their runs and of their artifacts; they leave no record."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import NotFoundError
from service.jobs.model import Content, Job, Run
from service.ports import JobFilter, Reads
from service.records import AuditContext
from service.roles import JOB_READERS, require

T = TypeVar("T")


class JobReading:
    """The job reads of one request; every reader sees the jobs of its own tenant only.

    Raises (each method):
        ForbiddenError: the credential may not read jobs.
        NotFoundError: there is no such job in the tenant.
        TryLaterError: the jobs cannot be read now.
    """

    def __init__(self, context: AuditContext, reads: Reads) -> None:
        self._context = context
        self._reads = reads

    async def jobs(
        self, where: JobFilter, cursor: str | None, limit: int
    ) -> tuple[Sequence[tuple[Job, Sequence[Run]]], str | None]:
        """Return one page of jobs, newest first, each with its runs, and the cursor of the next page."""

        def read() -> tuple[Sequence[tuple[Job, Sequence[Run]]], str | None]:
            page = self._reads.jobs(self._context.tenant_id, where, cursor, limit)
            return [self._with_runs(job) for job in page.rows], page.next_cursor

        return await self._allowed(read)

    async def job(self, job_id: str) -> tuple[Job, Sequence[Run]]:
        """Return a job and its runs, first to last."""
        return await self._allowed(lambda: self._with_runs(self._job(job_id)))

    async def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""
        _, runs = await self.job(job_id)
        return runs

    async def artifacts(self, job_id: str, number: int) -> Sequence[Content]:
        """Return the artifacts of a run, ordered by name."""

        def read() -> Sequence[Content]:
            if number not in range(1, self._job(job_id).run + 1):
                raise NotFoundError("there is no such run")
            return self._reads.artifacts(job_id, number)

        return await self._allowed(read)

    def is_final(self, job_id: str) -> bool:
        """Return whether a job is in a final state; blocks."""
        self.require_allowed()
        return self._job(job_id).status.is_final

    def require_allowed(self) -> None:
        """Raise unless the credential may read jobs."""
        require(self._context.roles, *JOB_READERS)

    async def _allowed(self, read: Callable[[], T]) -> T:
        self.require_allowed()
        return await asyncio.to_thread(read)

    def _job(self, job_id: str) -> Job:
        job = self._reads.job(job_id, self._context.tenant_id)
        if job is None:
            raise NotFoundError("there is no such job")
        return job

    def _with_runs(self, job: Job) -> tuple[Job, Sequence[Run]]:
        return job, self._reads.runs(job.job_id) if job.run else ()
