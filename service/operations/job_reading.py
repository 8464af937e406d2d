"""Reads of jobs, of their runs and of what these left behind; they leave no record."""

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
    """The job reads of one request; every reader sees the jobs of its own tenant.

    Raises (each method):
        ForbiddenError: the credential reads no jobs.
        NotFoundError: there is no such job in the tenant.
        TryLaterError: the jobs cannot be read now.
    """

    def __init__(self, context: AuditContext, reads: Reads) -> None:
        self._context = context
        self._reads = reads

    async def jobs(
        self, where: JobFilter, cursor: str | None, limit: int
    ) -> tuple[Sequence[tuple[Job, Sequence[Run]]], str | None]:
        """Return one page of jobs, newest first, each with its runs, and where the next page begins."""

        def read() -> tuple[Sequence[tuple[Job, Sequence[Run]]], str | None]:
            page = self._reads.jobs(self._context.tenant_id, where, cursor, limit)
            return [(job, self._runs_of(job)) for job in page.rows], page.next_cursor

        return await self._allowed(read)

    async def job(self, job_id: str) -> tuple[Job, Sequence[Run]]:
        """Return a job and its runs, first to last."""

        def read() -> tuple[Job, Sequence[Run]]:
            job = self._job(job_id)
            return job, self._runs_of(job)

        return await self._allowed(read)

    async def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""

        def read() -> Sequence[Run]:
            self._job(job_id)
            return self._reads.runs(job_id)

        return await self._allowed(read)

    async def artifacts(self, job_id: str, number: int) -> Sequence[Content]:
        """Return what a run left behind, by name."""

        def read() -> Sequence[Content]:
            if number not in range(1, self._job(job_id).run + 1):
                raise NotFoundError("there is no such run")
            return self._reads.artifacts(job_id, number)

        return await self._allowed(read)

    def is_final(self, job_id: str) -> bool:
        """Tell whether a job has come to a final state; blocks."""
        return self._job(job_id).status.is_final

    def require_allowed(self) -> None:
        """Raise unless the credential reads jobs."""
        require(self._context.roles, *JOB_READERS)

    async def _allowed(self, read: Callable[[], T]) -> T:
        self.require_allowed()
        return await asyncio.to_thread(read)

    def _job(self, job_id: str) -> Job:
        job = self._reads.job(job_id, self._context.tenant_id)
        if job is None:
            raise NotFoundError("there is no such job")
        return job

    def _runs_of(self, job: Job) -> Sequence[Run]:
        return self._reads.runs(job.job_id) if job.run else ()
