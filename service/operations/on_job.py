"""What the operations on one job have in common: they find the job, check that they may change it, and ask for runs."""

from collections.abc import Callable, Sequence

from service.errors import ConflictError, NotFoundError, PreconditionFailedError
from service.jobs import transitions
from service.jobs.model import Job, JobId, RunRequest
from service.jobs.templates import Template
from service.operations.base import Committed, Operation
from service.operations.idempotency import done_before, remembering
from service.operations.steps import Decision, moved, noop
from service.ports import Transaction
from service.roles import require
from telemetry import names
from telemetry.audit.record import Target
from telemetry.tracing import AuditedSpan

Decide = Callable[[Transaction, Job, int], Decision[Job]]


class OperationOnJob(Operation):
    """The common parts of the operations of one request."""

    async def _on_job(
        self, event_name: str, job_id: str, if_match: int | None, roles: Sequence[str], decide: Decide
    ) -> Committed[Job]:
        def on_job(transaction: Transaction, now_ns: int) -> Decision[Job]:
            require(self.context.roles, *roles)
            made_before = done_before(transaction, self.context, job_id)
            if made_before is not None:
                return self._replay(transaction, event_name, JobId(made_before))
            job = transaction.job(job_id, self.context.tenant_id)
            if job is None:
                raise NotFoundError("there is no such job")
            if if_match is not None and if_match != job.version:
                raise PreconditionFailedError(f"If-Match names version {if_match}; the job is at version {job.version}")
            return remembering(decide(transaction, job, now_ns), job_id, self.context, now_ns)

        return await self.attempt(event_name, Target("job", job_id), on_job)

    def _template(self, job: Job) -> Template:
        template = self.services.templates.now.get(job.template)
        if template is None:
            raise ConflictError(f"the template {job.template} is not offered any more: cancel the job")
        return template

    def _trigger(self, job: Job, template: Template, now_ns: int) -> Decision[Job]:
        request, span = self._request(job, None)
        after = transitions.trigger(job, request, requires_confirmation=template.requires_confirmation, now_ns=now_ns)
        return moved(names.EVENT_JOB_RUN_TRIGGER, job, after, span=span, record_id=request.record_id)

    def _request(self, job: Job, linked: str | None) -> tuple[RunRequest, AuditedSpan]:
        # When the operation is refused, this span never ends. The SDK exports only spans that end.
        links = (linked,) if linked else ()
        span = self.services.tracing.enqueue(self.span, job.job_id, job.template, links=links)
        request = RunRequest(
            initiator=self.context.actor,
            record_id=self.services.new_id(),
            request_id=self.context.request_id,
            traceparent=span.traceparent,
            tracestate=span.tracestate,
            linked_traceparent=linked,
        )
        return request, span

    def _replay(self, transaction: Transaction, event_name: str, job_id: JobId) -> Decision[Job]:
        job = transaction.job(job_id, self.context.tenant_id)
        if job is None:
            raise NotFoundError("the job that this Idempotency-Key made is gone")
        return Decision([noop(event_name, job)], job, is_replay=True)
