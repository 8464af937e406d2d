"""The operations of workers on runs: claim, renew, finish, release, and close the runs of workers that died."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from service.errors import TransitionRefusedError
from service.jobs import transitions
from service.jobs.model import Job, Plan, Run, RunRequest, RunStatus, Status
from service.operations.base import Operation, Services
from service.operations.steps import Decision, Ended, attempt_change, changed, closed, noop, status_change
from service.ports import Ledger, StartRun, Transaction
from service.records import AuditContext, Initiator, change
from telemetry import names
from telemetry.audit.record import SERVICE_ISSUER, Actor, Result, Target
from telemetry.tracing import JOB_RECLAIM, AuditedSpan

LEASE_EXPIRED: Final = "lease_expired"
_LOST: Final = "the worker is gone, or did not renew its lease in time: nobody knows what the run did"
WORKER_SHUTDOWN: Final = "worker_shutdown"
LEASE_LOST: Final = "lease_lost"
CANCELLED: Final = "cancelled"


class Claimed(msgspec.Struct, frozen=True):
    """A run that this worker owns, and the span of the run; its intent is committed."""

    job: Job
    run: Run
    request: RunRequest
    span: AuditedSpan

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"run {self.run.number} of job {self.job.job_id}"


Conclude = Callable[[Job, Run, int], Decision[Job]]


class RunOperations:
    """The operations of one worker.

    Raises (each method):
        TryLaterError: nothing was committed; ask again.
    """

    def __init__(
        self,
        services: Services,
        worker_id: str,
        lease_ns: int,
        retry_delay_ns: Callable[[int], int],
        intake: Ledger | None = None,
        max_tenant_bytes: int | None = None,
        isolation: Callable[[Plan | None], str] = lambda _: "none",
    ) -> None:
        """Carry out the operations of the worker `worker_id`.

        Args:
            services: the services that the operations use.
            worker_id: the id of the worker; no other worker ever has the same id.
            lease_ns: how long a claim is valid without a renewal.
            retry_delay_ns: returns the pause after the n-th attempt failed.
            intake: the ledger for claims, which may refuse them while runs still end; None is that of `services`.
            max_tenant_bytes: no job of a tenant that stores so many bytes is claimed; None for no limit.
            isolation: returns what keeps a run of a plan from the service; the record of its claim states it.
        """
        self._services = services
        self._intake = intake or services.ledger
        self.worker_id = worker_id
        self.lease_ns = lease_ns
        self._retry_delay_ns = retry_delay_ns
        self._max_tenant_bytes = max_tenant_bytes
        self._isolation = isolation

    def claim(self) -> Claimed | None:
        """Claim the next job that is due. The record states the intent, and is committed before the command starts."""

        def save(transaction: Transaction) -> tuple[Claimed, Callable[[], object]] | None:
            now_ns = self._services.clock()
            job = transaction.next_runnable(now_ns, self._max_tenant_bytes)
            if job is None or job.request is None:
                return None
            request = job.request
            links = [request.linked_traceparent] if request.linked_traceparent else []
            span = self._services.tracing.run(request.traceparent, request.tracestate, job.job_id, job.template, links)
            after = transitions.claim(job, now_ns)
            run = Run(
                job_id=job.job_id,
                number=after.run,
                status=RunStatus.RUNNING,
                worker_id=self.worker_id,
                traceparent=span.traceparent,
                started_ns=now_ns,
            )
            changes = {
                **status_change(job, after),
                **attempt_change(job, after),
                "run": change(job.run or None, after.run),
            }
            start = StartRun(run, now_ns + self.lease_ns)
            isolation = self._isolation(job.plan)
            step = changed(
                names.EVENT_JOB_STATUS_TRANSITION, after, changes, run=run, writes=(start,), isolation=isolation
            )
            operation = self._operation(job, span)
            saved = operation.save(transaction, Decision([step], after), now_ns)
            return Claimed(after, run, request, span), lambda: operation.conclude(saved)

        committed = self._intake.submit(save).result()
        if committed is None:
            return None
        claimed, conclude = committed
        conclude()
        return claimed

    def renew(self, claims: Sequence[Claimed]) -> Sequence[Claimed]:
        """Extend these leases; return the runs that must end: they were cancelled, or reclaimed by another worker."""

        def work(transaction: Transaction) -> Sequence[Claimed]:
            until_ns = self._services.clock() + self.lease_ns
            return [claimed for claimed in claims if not self._renew(transaction, claimed, until_ns)]

        return self._services.ledger.submit(work).result()

    def finish(self, claimed: Claimed, ended: Ended) -> Job:
        """Record how the run ended, with its artifacts; a failed job returns to the queue while attempts are left.

        Raises:
            TransitionRefusedError: another worker closed the run after its lease had ended; this is recorded.
        """

        def conclude(job: Job, run: Run, now_ns: int) -> Decision[Job]:
            spans: tuple[AuditedSpan, ...] = ()
            if ended.error_type is None:
                after, status, result = transitions.succeed(job, now_ns), RunStatus.SUCCEEDED, Result.SUCCESS
            else:
                request = self._next_request(claimed.span, job, claimed.request, run)
                after, spans = self._fail(job, *request, is_retryable=ended.is_retryable, now_ns=now_ns)
                status, result = RunStatus.FAILED, Result.ERROR
            step = closed(job, after, run, ended, status=status, result=result, now_ns=now_ns)
            return Decision([step], after, spans=spans)

        return self._end(claimed, ended, conclude)

    def release(self, claimed: Claimed, ended: Ended) -> Job:
        """Release a run because the worker stops: the job is queued again and keeps its attempt."""

        def conclude(job: Job, run: Run, now_ns: int) -> Decision[Job]:
            request, span = self._next_request(claimed.span, job, claimed.request, run)
            after = transitions.release(job, request, now_ns)
            released = msgspec.structs.replace(
                ended, error_type=WORKER_SHUTDOWN, reason="the worker stopped and handed the run back"
            )
            step = closed(job, after, run, released, status=RunStatus.RELEASED, result=Result.ERROR, now_ns=now_ns)
            return Decision([step], after, spans=(span,))

        return self._end(claimed, ended, conclude)

    def reclaim(self, kept: Sequence[Claimed] = ()) -> bool:
        """Close one run whose lease has ended, outcome unknown, and queue or fail its job; False when there is none.

        Args:
            kept: the runs in progress of this worker; if the lease of one has ended, it is renewed instead.
        """
        span = self._services.tracing.root(JOB_RECLAIM)

        def save(transaction: Transaction) -> Callable[[], object] | None:
            now_ns = self._services.clock()
            run = transaction.expired_run(now_ns)
            for claimed in kept:
                if run is not None and (claimed.run.job_id, claimed.run.number) == (run.job_id, run.number):
                    # The clock jumped, or this process stood still. A worker never reclaims its own run.
                    self._renew(transaction, claimed, now_ns + self.lease_ns)
                    return None
            job = transaction.job(run.job_id, None) if run else None
            if run is None or job is None or job.request is None:
                return None
            operation = self._operation(job, span)
            decision = self._reclaimed(span, job, job.request, run, now_ns)
            saved = operation.save(transaction, decision, now_ns)

            def conclude() -> None:
                span.link(run.traceparent)
                operation.conclude(saved)

            return conclude

        conclude = self._services.ledger.submit(save).result()
        if conclude is None:
            return False
        conclude()
        span.end()
        return True

    def _reclaimed(self, span: AuditedSpan, job: Job, request: RunRequest, run: Run, now_ns: int) -> Decision[Job]:
        duration_ms = max(0, now_ns - run.started_ns) // 1_000_000
        ended = Ended(
            error_type=LEASE_EXPIRED, reason=_LOST, exit_code=None, duration_ms=duration_ms, is_retryable=True
        )
        after = job
        spans: tuple[AuditedSpan, ...] = ()
        # A job that was cancelled before its worker died is final already, and only its run is still open.
        if job.status is Status.RUNNING and job.run == run.number:
            follow_up = self._next_request(span, job, request, run)
            after, spans = self._fail(job, *follow_up, is_retryable=True, now_ns=now_ns)
        lost = {"worker": change(run.worker_id, None)}
        step = closed(job, after, run, ended, status=RunStatus.UNKNOWN, result=Result.UNKNOWN, now_ns=now_ns, more=lost)
        return Decision([step], after, spans=spans)

    def _end(self, claimed: Claimed, ended: Ended, conclude: Conclude) -> Job:
        operation = self._operation(claimed.job, claimed.span)

        def end(transaction: Transaction, now_ns: int) -> Decision[Job]:
            job = transaction.job(claimed.job.job_id, None)
            run = transaction.run(claimed.job.job_id, claimed.run.number)
            if job is None or run is None or run.status is RunStatus.UNKNOWN:
                raise TransitionRefusedError("the run was closed by another worker after its lease had ended")
            if run.status is not RunStatus.RUNNING:
                # Only its owner closes a run in this way. So the commit was made earlier, and only its answer was lost.
                return Decision([noop(names.EVENT_JOB_STATUS_TRANSITION, job, run)], job)
            if job.status is Status.CANCELLED:
                cancelled = msgspec.structs.replace(
                    ended, error_type=CANCELLED, reason="the job was cancelled while it ran"
                )
                step = closed(job, job, run, cancelled, status=RunStatus.CANCELLED, result=Result.ERROR, now_ns=now_ns)
                return Decision([step], job)
            return conclude(job, run, now_ns)

        target = Target("job", claimed.job.job_id)
        return operation.attempt_now(names.EVENT_JOB_STATUS_TRANSITION, target, end).value

    def _renew(self, transaction: Transaction, claimed: Claimed, until_ns: int) -> bool:
        return transaction.renew_lease(claimed.job.job_id, claimed.run.number, self.worker_id, until_ns)

    def _operation(self, job: Job, span: AuditedSpan) -> Operation:
        request = job.request
        context = AuditContext(
            actor=Actor(self.worker_id, "system", SERVICE_ISSUER),
            tenant_id=job.tenant_id,
            source="worker",
            request_id=request.request_id if request else None,
            initiator=Initiator(request.initiator, request.record_id) if request else None,
        )
        return Operation(self._services, context, span)

    def _next_request(
        self, parent: AuditedSpan, job: Job, request: RunRequest, run: Run
    ) -> tuple[RunRequest, AuditedSpan]:
        """Return the request for the next attempt and its producer span, which links to the run that ended."""
        span = self._services.tracing.enqueue(parent, job.job_id, job.template, links=[run.traceparent])
        follow_up = msgspec.structs.replace(
            request, traceparent=span.traceparent, tracestate=span.tracestate, linked_traceparent=run.traceparent
        )
        return follow_up, span

    def _fail(
        self, job: Job, request: RunRequest, span: AuditedSpan, *, is_retryable: bool, now_ns: int
    ) -> tuple[Job, tuple[AuditedSpan, ...]]:
        attempts = job.plan.max_attempts if job.plan else 1
        not_before_ns = now_ns + self._retry_delay_ns(max(1, attempts - job.attempts_left))
        after = transitions.fail(job, request, is_retryable=is_retryable, not_before_ns=not_before_ns, now_ns=now_ns)
        return after, (span,) if after.status is Status.QUEUED else ()
