"""The operations of API clients on jobs: create, write input, draft, confirm, run, retry, cancel, read an artifact."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from service.errors import (
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PreconditionFailedError,
)
from service.jobs import transitions
from service.jobs.model import Content, Job, JobId, ParameterValue, Plan, RunRequest, Status
from service.jobs.plan import render_plan
from service.jobs.templates import Template
from service.operations.base import Committed, Operation
from service.operations.idempotency import job_made_before, remembering
from service.operations.steps import Decision, Step, changed, content_change, moved, noop
from service.ports import PutInput, PutSecrets, Transaction, Write
from service.records import Fact, change
from service.roles import APPROVER, JOB_READERS, OPERATOR, require
from telemetry import names
from telemetry.audit.record import Result, Target
from telemetry.tracing import AuditedSpan

MAX_INPUTS: Final = 32

Decide = Callable[[Transaction, Job, int], Decision[Job]]


class JobOperations(Operation):
    """The operations of one request; each returns after its record is committed.

    Raises (each method):
        RefusedError: refused; the record of the refusal is committed.
        TryLaterError: nothing was committed.
    """

    async def create(self, template_name: str, parameters: Mapping[str, object]) -> Committed[Job]:
        """Create a job from a template; the same Idempotency-Key and body return the same job, and are a no-op."""
        template = self.services.templates.now.get(template_name)

        def decide(transaction: Transaction, now_ns: int) -> Decision[Job]:
            require(self.context.roles, OPERATOR)
            made_before = job_made_before(transaction, self.context, None)
            if made_before is not None:
                return self._replay(transaction, names.EVENT_JOB_CREATE, made_before)
            if template is None:
                raise InvalidRequestError(f"there is no template {template_name!r}: see `auditrace templates`")
            checked = template.check(parameters)
            job_id = JobId(self.services.new_id())
            visible, secrets = self._hide(template, checked, job_id)
            job = Job(
                job_id=job_id,
                tenant_id=self.context.tenant_id,
                template=template_name,
                parameters=visible,
                status=Status.CREATED,
                version=1,
                created_by=self.context.actor.id,
                created_ns=now_ns,
                updated_ns=now_ns,
                trace_id=self.span.ref.trace_id,
            )
            changes = {
                "status": change(None, Status.CREATED.value),
                "template": change(None, template_name),
                "parameters": change(None, visible),
            }
            step = changed(names.EVENT_JOB_CREATE, job, changes, writes=secrets)
            return remembering(Decision([step], job), self.context, now_ns)

        target = Target("template", template_name) if template else Target("http.endpoint", "/v1/jobs")
        return await self.attempt(names.EVENT_JOB_CREATE, target, decide)

    async def write_input(self, job_id: str, name: str, payload: bytes, if_match: int | None) -> Committed[Job]:
        """Store or replace an input of a job that has no draft."""
        content = Content(name, len(payload), hashlib.sha256(payload).hexdigest())

        def decide(transaction: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            present = {known.name: known for known in transaction.inputs(job.job_id)}
            if name not in present and len(present) >= MAX_INPUTS:
                raise LimitExceededError(f"a job takes at most {MAX_INPUTS} inputs")
            before = present.get(name)
            if before == content:
                return Decision([noop(names.EVENT_INPUT_WRITE, job)], job)
            after = transitions.accept_input(job, now_ns)
            changes, put = content_change(before, content), PutInput(content, payload)
            return Decision([changed(names.EVENT_INPUT_WRITE, after, changes, writes=(put,))], after)

        return await self._on_job(names.EVENT_INPUT_WRITE, job_id, if_match, (OPERATOR,), decide)

    async def draft(self, job_id: str, if_match: int | None) -> Committed[Job]:
        """Render the plan: exactly what a run would execute."""

        def decide(transaction: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            def render() -> Plan:
                inputs = transaction.inputs(job.job_id)
                return render_plan(self._template(job), job.parameters, inputs, self.services.secret.mask)

            after = transitions.draft(job, render, now_ns)
            plan = after.plan if after else None
            more = {"plan_sha256": change(None, plan.sha256)} if plan else None
            return moved(names.EVENT_JOB_DRAFT, job, after, more)

        return await self._on_job(names.EVENT_JOB_DRAFT, job_id, if_match, (OPERATOR,), decide)

    async def confirm(
        self,
        job_id: str,
        *,
        confirmed: bool,
        plan_sha256: str | None,
        notes: str | None,
        run: bool,
        if_match: int | None,
    ) -> Committed[Job]:
        """Approve the plan with this hash, and trigger the run in the same transaction unless `run` is false."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            if not confirmed:
                return Decision([noop(names.EVENT_JOB_CONFIRM, job)], job)
            if plan_sha256 is None:
                raise InvalidRequestError("plan_sha256 is required: it names the plan that is confirmed")
            template = self._template(job)
            after = transitions.confirm(
                job,
                self.context.actor.id,
                plan_sha256,
                distinct_confirmer=template.distinct_confirmer,
                now_ns=now_ns,
            )
            more = {"confirmed": change(False, True), "plan_sha256": change(None, plan_sha256)}
            if notes is not None:
                more["notes_sha256"] = change(None, hashlib.sha256(notes.encode()).hexdigest())
            decision = moved(names.EVENT_JOB_CONFIRM, job, after, more)
            if not run or decision.value.status is not Status.CONFIRMED:
                return decision
            queued = self._trigger(decision.value, template, now_ns)
            return Decision([*decision.steps, *queued.steps], queued.value)

        return await self._on_job(names.EVENT_JOB_CONFIRM, job_id, if_match, (APPROVER,), decide)

    async def run(self, job_id: str, if_match: int | None) -> Committed[Job]:
        """Put the job on the queue."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            return self._trigger(job, self._template(job), now_ns)

        return await self._on_job(names.EVENT_JOB_RUN_TRIGGER, job_id, if_match, (OPERATOR,), decide)

    async def retry(self, job_id: str, if_match: int | None) -> Committed[Job]:
        """Put a failed job on the queue again; its trace links to the span of the last run."""

        def decide(transaction: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            last = transaction.run(job.job_id, job.run) if job.run else None
            request, span = self._request(job, last.traceparent if last else None)
            requires_confirmation = self._template(job).requires_confirmation
            after = transitions.retry(job, request, requires_confirmation=requires_confirmation, now_ns=now_ns)
            more = {"run": change(job.run, job.run + 1)}
            return moved(names.EVENT_JOB_RETRY, job, after, more, span=span, record_id=request.record_id)

        return await self._on_job(names.EVENT_JOB_RETRY, job_id, if_match, (OPERATOR,), decide)

    async def cancel(self, job_id: str, if_match: int | None) -> Committed[Job]:
        """Cancel a job that is not final; the worker of a run in progress kills it."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            return moved(names.EVENT_JOB_CANCEL, job, transitions.cancel(job, now_ns))

        return await self._on_job(names.EVENT_JOB_CANCEL, job_id, if_match, (OPERATOR,), decide)

    async def read_artifact(self, job_id: str, run: int, content: Content | None) -> Committed[None]:
        """Record the read of an artifact, before its bytes are returned; `content` None means that there is none."""
        target_id = f"{job_id}/runs/{run}/{content.name}" if content else f"{job_id}/runs/{run}"

        def decide(transaction: Transaction, _now_ns: int) -> Decision[None]:
            require(self.context.roles, *JOB_READERS)
            job = transaction.job(job_id, self.context.tenant_id)
            if job is None or content is None:
                raise NotFoundError("there is no such artifact")
            fact = Fact(
                event_name=names.EVENT_ARTIFACT_READ,
                target=Target("artifact", target_id),
                result=Result.SUCCESS,
                changes=content_change(None, content),
                job=job,
                run=run,
            )
            return Decision([Step(fact=fact)], None)

        return await self.attempt(names.EVENT_ARTIFACT_READ, Target("artifact", target_id), decide)

    async def _on_job(
        self, event_name: str, job_id: str, if_match: int | None, roles: Sequence[str], decide: Decide
    ) -> Committed[Job]:
        def on_job(transaction: Transaction, now_ns: int) -> Decision[Job]:
            require(self.context.roles, *roles)
            made_before = job_made_before(transaction, self.context, job_id)
            if made_before is not None:
                return self._replay(transaction, event_name, made_before)
            job = transaction.job(job_id, self.context.tenant_id)
            if job is None:
                raise NotFoundError("there is no such job")
            if if_match is not None and if_match != job.version:
                raise PreconditionFailedError(f"If-Match names version {if_match}; the job is at version {job.version}")
            return remembering(decide(transaction, job, now_ns), self.context, now_ns)

        return await self.attempt(event_name, Target("job", job_id), on_job)

    def _template(self, job: Job) -> Template:
        template = self.services.templates.now.get(job.template)
        if template is None:
            raise ConflictError(f"the template {job.template} is not offered any more: cancel the job")
        return template

    def _hide(
        self, template: Template, parameters: Mapping[str, ParameterValue], job_id: str
    ) -> tuple[dict[str, ParameterValue], tuple[Write, ...]]:
        secret = self.services.secret
        hidden = {name: str(parameters[name]) for name in template.sensitive_names if name in parameters}
        visible = {name: secret.mask(hidden[name]) if name in hidden else parameters[name] for name in parameters}
        ciphertexts = {name: secret.encrypt(value, job_id) for name, value in hidden.items()}
        return visible, (PutSecrets(ciphertexts),) if ciphertexts else ()

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
