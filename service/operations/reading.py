"""Reads of the audit trail. Each read is recorded before its result is returned."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from service.errors import ForbiddenError, NotFoundError, RefusedError
from service.jobs.model import Job
from service.jobs.transitions import may_decide
from service.operations.base import Operation, Services, asks_for_another
from service.operations.filters import filter_text
from service.operations.proofs import Proof, proof_of
from service.operations.tallies import LEDGER, Tallies
from service.ports import CheckpointRow, ListingOrder, Page, Reads, RecordFilter, RecordRow, StreamRow
from service.records import AuditContext
from service.roles import APPROVER, AUDITOR, has_one, require
from telemetry import names
from telemetry.audit.body_view import view_body
from telemetry.audit.record import KEY_ISSUER
from telemetry.tracing import AuditedSpan

T = TypeVar("T")


class AuditReading(Operation):
    """The audit reads of one request. Every reader, also `admin`, sees the records of its own tenant only.

    Raises (each method):
        RefusedError: refused; the record of the refusal is committed.
        TryLaterError: the trail cannot be read, or the read cannot be recorded; nothing is returned.
    """

    def __init__(
        self,
        services: Services,
        context: AuditContext,
        span: AuditedSpan,
        reads: Reads,
        tallies: Tallies,
        at_once: asyncio.Semaphore,
    ) -> None:
        """Read for one request; `at_once` bounds how many reads of the trail use threads at the same time."""
        super().__init__(services, context, span)
        self._reads = reads
        self._tallies = tallies
        self._at_once = at_once

    async def records(
        self, where: RecordFilter, cursor: str | None, limit: int, order: ListingOrder = ListingOrder.DESC
    ) -> Page[RecordRow]:
        """Return one page of the records that match, newest first unless `order` says otherwise."""

        def read() -> Page[RecordRow]:
            if where.tenant_id not in {None, self.context.tenant_id}:
                raise ForbiddenError("this credential reads the records of its own tenant only")
            own = msgspec.structs.replace(where, tenant_id=self.context.tenant_id)
            return self._reads.records(own, cursor, limit, order)

        return await self._for_auditors(filter_text(where), read)

    async def of_job(self, job_id: str, cursor: str | None, limit: int) -> Page[RecordRow]:
        """Return one page of the records of a job, newest first; for approvers, of a job that they may decide."""

        def read() -> Page[RecordRow]:
            require(self.context.roles, AUDITOR, APPROVER)
            job = self._reads.job(job_id, self.context.tenant_id)
            if job is None:
                raise NotFoundError("there is no such job")
            if not has_one(self.context.roles, AUDITOR) and not self._may_decide(job):
                raise ForbiddenError("this needs the role auditor, or a job that you may confirm or reject")
            return self._reads.records(RecordFilter(job_id=(job_id,), tenant_id=self.context.tenant_id), cursor, limit)

        return await self._recorded(filter_text(RecordFilter(job_id=(job_id,))), read)

    async def record(self, record_id: str) -> RecordRow:
        """Return one record.

        An actor may read the records of its own acts, to follow their delivery. Approvers may read those of the jobs
        that they may decide.
        """
        return await self._recorded(urlencode({"record_id": record_id}), lambda: self._readable(record_id))

    async def streams(self, cursor: str | None, limit: int) -> Page[StreamRow]:
        """Return one page of the streams of the ledger; they belong to no tenant, and hold hashes only."""
        return await self._for_auditors(urlencode({"view": "streams"}), lambda: self._reads.streams(cursor, limit))

    async def checkpoints(self, cursor: str | None, limit: int) -> Page[CheckpointRow]:
        """Return one page of checkpoints, the last one first; they belong to no tenant."""
        what = urlencode({"view": "checkpoints"})
        return await self._for_auditors(what, lambda: self._reads.checkpoints(cursor, limit))

    async def proof(self, record_id: str) -> Proof:
        """Return the proof of one record, for a holder of the public key."""
        what = urlencode({"proof_of": record_id})
        return await self._recorded(
            what, lambda: proof_of(self._readable(record_id), self._reads), names.EVENT_AUDIT_VERIFY
        )

    async def _for_auditors(self, what: str, read: Callable[[], T]) -> T:
        def allowed() -> T:
            require(self.context.roles, AUDITOR)
            return read()

        return await self._recorded(what, allowed)

    async def _recorded(self, what: str, read: Callable[[], T], event_name: str = names.EVENT_AUDIT_READ) -> T:
        try:
            async with self._at_once:
                found = await asyncio.to_thread(read)
        except RefusedError as refusal:
            refusal.filter_text = what
            await self.refuse(event_name, LEDGER, refusal)
            raise
        await self._tallies.audit_read(self.context, self.span, what, event_name)
        return found

    def _readable(self, record_id: str) -> RecordRow:
        row = self._reads.record(record_id, self.context.tenant_id)
        if not has_one(self.context.roles, AUDITOR) and (row is None or not self._is_allowed(row)):
            raise ForbiddenError(
                "this needs the role auditor, or a record of your own act or of a job that you may confirm or reject"
            )
        if row is None:
            raise NotFoundError("there is no such record")
        return row

    def _is_allowed(self, row: RecordRow) -> bool:
        attributes = view_body(row.body).attributes
        # Version 1.0.0 states no issuer. Such a record counts as one of an API key, so a token needs the role for it.
        issuer = attributes.get(names.AUDITRACE_ACTOR_ISSUER, KEY_ISSUER)
        if (attributes.get(names.AUDIT_ACTOR_ID), issuer) == (self.context.actor.id, self.context.actor.issuer):
            return True
        job_id = attributes.get(names.AUDITRACE_JOB_ID)
        job = self._reads.job(str(job_id), self.context.tenant_id) if job_id else None
        return job is not None and has_one(self.context.roles, APPROVER) and self._may_decide(job)

    def _may_decide(self, job: Job) -> bool:
        template = self.services.templates.now.get(job.template)
        try:
            self._require_known_people(job, template)
        except ForbiddenError:
            return False
        return may_decide(job, is_creator=self._is_creator(job), distinct_confirmer=asks_for_another(template))
