"""The operations of API clients on jobs, from their creation to the read of an artifact."""

import hashlib
from collections.abc import Mapping
from typing import Final

from service.errors import InvalidRequestError, LimitExceededError, NotFoundError
from service.jobs import transitions
from service.jobs.model import Confirmation, Content, Job, JobId, ParameterValue, Plan, Rejection, Status
from service.jobs.plan import plan_text, render_plan
from service.jobs.templates import Template
from service.jobs.texts import is_blank
from service.operations.base import Committed, asks_for_another
from service.operations.idempotency import done_before, remembering
from service.operations.on_job import OperationOnJob
from service.operations.steps import Decision, Step, attempt_change, changed, content_change, moved, noop, stating
from service.ports import PutInput, PutSecrets, Transaction, Write
from service.records import Fact, change
from service.roles import APPROVER, ARTIFACT_READERS, OPERATOR, require
from telemetry import names
from telemetry.audit.record import Result, Target

MAX_INPUTS: Final = 32


class JobOperations(OperationOnJob):
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
            made_before = done_before(transaction, self.context, None)
            if made_before is not None:
                return self._replay(transaction, names.EVENT_JOB_CREATE, JobId(made_before))
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
                created_by_issuer=self.context.actor.issuer,
                created_by_person=self.context.person,
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
            return remembering(Decision([step], job), job_id, self.context, now_ns)

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
            if plan is None:
                return moved(names.EVENT_JOB_DRAFT, job, after)
            more = {"plan_sha256": change(None, plan.sha256)}
            return stating(moved(names.EVENT_JOB_DRAFT, job, after, more), plan=plan_text(plan))

        return await self._on_job(names.EVENT_JOB_DRAFT, job_id, if_match, (OPERATOR,), decide)

    async def confirm(
        self,
        job_id: str,
        *,
        plan_sha256: str | None,
        notes: str | None,
        run: bool,
        if_match: int | None,
    ) -> Committed[Job]:
        """Approve the plan with this hash, and trigger the run in the same transaction unless `run` is false."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            if plan_sha256 is None:
                raise InvalidRequestError("plan_sha256 is required: it names the plan that is confirmed")
            template = self._template(job)
            self._require_known_people(job, template)
            confirmation = Confirmation(
                by=self.context.actor,
                at_ns=now_ns,
                notes=notes,
                plan_sha256=plan_sha256,
                record_id=self.services.new_id(),
            )
            after = transitions.confirm(
                job, confirmation, is_creator=self._is_creator(job), distinct_confirmer=template.distinct_confirmer
            )
            more = {"confirmed": change(False, True), "plan_sha256": change(None, plan_sha256)}
            moving = moved(names.EVENT_JOB_CONFIRM, job, after, more, record_id=confirmation.record_id)
            decision = stating(moving, notes=notes)
            if not run or decision.value.status is not Status.CONFIRMED:
                return decision
            queued = self._trigger(decision.value, template, now_ns)
            return Decision([*decision.steps, *queued.steps], queued.value)

        return await self._on_job(names.EVENT_JOB_CONFIRM, job_id, if_match, (APPROVER,), decide)

    async def reject(
        self, job_id: str, *, reason: str | None, plan_sha256: str | None, if_match: int | None, member: str = "reason"
    ) -> Committed[Job]:
        """Refuse the plan for good, or the plan with this hash only.

        Args:
            job_id: the job.
            reason: why; it must not be blank.
            plan_sha256: the hash of the plan that is rejected; None for the plan of the job, whatever it is.
            if_match: the version that the job must have; None for any.
            member: the name of the reason in the request.
        """

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            if reason is None or is_blank(reason):
                raise InvalidRequestError(f"{member} is required: it says why the plan is rejected")
            rejection = Rejection(
                by=self.context.actor,
                at_ns=now_ns,
                reason=reason,
                plan_sha256=plan_sha256 or (job.plan.sha256 if job.plan else ""),
                record_id=self.services.new_id(),
            )
            template = self.services.templates.now.get(job.template)
            self._require_known_people(job, template)
            after = transitions.reject(
                job, rejection, is_creator=self._is_creator(job), distinct_confirmer=asks_for_another(template)
            )
            more = {"plan_sha256": change(None, rejection.plan_sha256)}
            moving = moved(names.EVENT_JOB_REJECT, job, after, more, record_id=rejection.record_id)
            return stating(moving, reason=reason)

        return await self._on_job(names.EVENT_JOB_REJECT, job_id, if_match, (APPROVER,), decide)

    async def run(self, job_id: str, if_match: int | None) -> Committed[Job]:
        """Put the job on the queue."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            return self._trigger(job, self._template(job), now_ns)

        return await self._on_job(names.EVENT_JOB_RUN_TRIGGER, job_id, if_match, (OPERATOR,), decide)

    async def retry(self, job_id: str, if_match: int | None, reason: str | None = None) -> Committed[Job]:
        """Put a failed job on the queue again; its trace links to the span of the last run."""

        def decide(transaction: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            last = transaction.run(job.job_id, job.run) if job.run else None
            request, span = self._request(job, last.traceparent if last else None)
            requires_confirmation = self._template(job).requires_confirmation
            after = transitions.retry(job, request, requires_confirmation=requires_confirmation, now_ns=now_ns)
            more = {"run": change(job.run, job.run + 1)}
            if after is not None:
                more |= attempt_change(job, after)
            if last is not None and last.error_type is not None:
                more["error_type"] = change(last.error_type, None)
            moving = moved(names.EVENT_JOB_RETRY, job, after, more, span=span, record_id=request.record_id)
            return stating(moving, reason=reason)

        return await self._on_job(names.EVENT_JOB_RETRY, job_id, if_match, (OPERATOR,), decide)

    async def cancel(self, job_id: str, if_match: int | None, reason: str | None = None) -> Committed[Job]:
        """Cancel a job that is not final; the worker of a run in progress kills it."""

        def decide(_: Transaction, job: Job, now_ns: int) -> Decision[Job]:
            return stating(moved(names.EVENT_JOB_CANCEL, job, transitions.cancel(job, now_ns)), reason=reason)

        return await self._on_job(names.EVENT_JOB_CANCEL, job_id, if_match, (OPERATOR,), decide)

    async def read_artifact(self, job_id: str, run: int, content: Content | None) -> Committed[None]:
        """Record the read of an artifact, before its bytes are returned; `content` None means that there is none."""
        target_id = f"{job_id}/runs/{run}/{content.name}" if content else f"{job_id}/runs/{run}"

        def decide(transaction: Transaction, _now_ns: int) -> Decision[None]:
            require(self.context.roles, *ARTIFACT_READERS)
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

    def _hide(
        self, template: Template, parameters: Mapping[str, ParameterValue], job_id: str
    ) -> tuple[dict[str, ParameterValue], tuple[Write, ...]]:
        secret = self.services.secret
        hidden = {name: str(parameters[name]) for name in template.sensitive_names if name in parameters}
        visible = {name: secret.mask(hidden[name]) if name in hidden else parameters[name] for name in parameters}
        ciphertexts = {name: secret.encrypt(value, job_id) for name, value in hidden.items()}
        return visible, (PutSecrets(ciphertexts),) if ciphertexts else ()
