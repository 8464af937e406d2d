"""Carries out an operation: decide, save, commit, mark the span, answer or refuse.

Every attempt leaves a record by construction. A refusal is saved in the transaction in which it was decided. An error
of the code itself is saved in the next transaction.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from service.errors import AuditraceError, ForbiddenError, OperationFailedError, RefusedError
from service.jobs.model import Job
from service.jobs.people import Participant, is_one_person, require_known_people
from service.jobs.templates import Template
from service.operations.steps import Decision, Step
from service.operations.templates_in_force import TemplatesInForce
from service.ports import Clock, Ledger, NewId, Receipt, Transaction, Transition
from service.records import AuditContext, Fact, change, record_of
from service.secrets import DeploymentSecret
from telemetry.audit.record import AuditRecord, Result, Target
from telemetry.tracing import AuditedSpan, Tracing

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


def _nobody(_context: AuditContext, _number: int) -> None:
    return None


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The services that operations use; the composition root makes them once."""

    ledger: Ledger
    templates: TemplatesInForce
    secret: DeploymentSecret
    tracing: Tracing
    clock: Clock
    new_id: NewId
    on_records: Callable[[AuditContext, int], object] = _nobody
    """Called after each commit with the number of its records; from any thread."""


class Committed(msgspec.Struct, Generic[T], frozen=True):
    """A committed operation: its result and the receipts of its records, in order."""

    value: T
    receipts: Sequence[Receipt]
    is_replay: bool = False

    @property
    def receipt(self) -> Receipt:
        """The receipt of the first record, which has the event name of the operation."""
        return self.receipts[0]


class Saved(msgspec.Struct, Generic[T], frozen=True):
    """The records of one operation in an open transaction; they are valid after the commit of the lane."""

    marks: Sequence[tuple[AuditedSpan, AuditRecord]]
    receipts: Sequence[Receipt]
    outcome: Decision[T] | RefusedError


async def committed(future: "Future[T]") -> T:
    """Wait for a lane. When the waiting task is cancelled (the client hung up), the work continues."""
    return await asyncio.shield(asyncio.wrap_future(future))


@contextmanager
def naming(receipt: Receipt) -> Generator[None]:
    """Put the receipt of a committed record into every error that this block raises afterwards.

    Raises:
        AuditraceError: the error of the block, with this receipt.
        OperationFailedError: the block raised another error.
    """
    try:
        yield
    except AuditraceError as error:
        error.receipt = receipt
        raise
    except Exception as error:
        raise OperationFailedError(receipt) from error


class Operation:
    """Carries out the operations of one audit context, inside one span."""

    def __init__(self, services: Services, context: AuditContext, span: AuditedSpan) -> None:
        self.services = services
        self.context = context
        self.span = span

    async def attempt(
        self, event_name: str, target: Target, decide: Callable[[Transaction, int], Decision[T]]
    ) -> Committed[T]:
        """Carry out `decide` in a lane and return after the commit.

        Raises:
            RefusedError: the decision of `decide`; its record is committed and named in `receipt`.
            TryLaterError: nothing was committed.
            OperationFailedError: `decide` raised another error; nothing was changed, and a record of it is committed.
        """
        try:
            saved = await committed(self.services.ledger.submit(self._work(event_name, target, decide)))
        except AuditraceError:
            raise
        except Exception as error:
            failed = await committed(self.services.ledger.submit(self._failure(event_name, target, error)))
            raise OperationFailedError(self._marked(failed)) from error
        return self.conclude(saved)

    def attempt_now(
        self, event_name: str, target: Target, decide: Callable[[Transaction, int], Decision[T]]
    ) -> Committed[T]:
        """Do the same in a thread that may block: in workers and commands."""
        try:
            saved = self.services.ledger.submit(self._work(event_name, target, decide)).result()
        except AuditraceError:
            raise
        except Exception as error:
            self._marked(self.services.ledger.submit(self._failure(event_name, target, error)).result())
            raise
        return self.conclude(saved)

    async def refuse(self, event_name: str, target: Target, refusal: RefusedError) -> None:
        """Commit the record of a refusal that was decided before an operation began (of a malformed body, say)."""

        def decide(_transaction: Transaction, _now_ns: int) -> Decision[None]:
            raise refusal

        try:
            await self.attempt(event_name, target, decide)
        except RefusedError:
            return

    def save(self, transaction: Transaction, decision: Decision[T], now_ns: int) -> Saved[T]:
        """Write the steps of a decision into the open transaction."""
        return Saved(*self._save(transaction, decision.steps, now_ns), decision)

    def conclude(self, saved: Saved[T]) -> Committed[T]:
        """After the commit: mark the spans with their records, end the spans of the steps, and answer or refuse."""
        receipt, outcome = self._marked(saved), saved.outcome
        if isinstance(outcome, RefusedError):
            outcome.receipt = receipt
            raise outcome
        ending = dict.fromkeys(span for span, _ in saved.marks if span is not self.span)
        for span in (*ending, *outcome.spans):
            span.end()
        return Committed(outcome.value, saved.receipts, outcome.is_replay)

    def _is_creator(self, job: Job) -> bool:
        """True when the actor of this operation created the job, or the same person did with another credential."""
        return is_one_person(_creator(job), self._participant)

    def _require_known_people(self, job: Job, template: Template | None) -> None:
        if template is not None and template.requires_person and not self._is_creator(job):
            require_known_people(_creator(job), self._participant)

    @property
    def _participant(self) -> Participant:
        return Participant(self.context.actor.id, self.context.actor.issuer, self.context.person)

    def _work(
        self, event_name: str, target: Target, decide: Callable[[Transaction, int], Decision[T]]
    ) -> Callable[[Transaction], Saved[T]]:
        def work(transaction: Transaction) -> Saved[T]:
            now_ns = self.services.clock()
            try:
                decision = decide(transaction, now_ns)
            except RefusedError as refusal:
                if self.context.leaves_refusals:
                    refusal.event_name, refusal.target = event_name, target
                    raise
                step = Step(fact=refused_fact(event_name, target, refusal))
                return Saved(*self._save(transaction, [step], now_ns), refusal)
            return self.save(transaction, decision, now_ns)

        return work

    def _marked(self, saved: Saved[T]) -> Receipt:
        for span, record in saved.marks:
            span.mark(record)
        self.services.on_records(self.context, len(saved.receipts))
        return saved.receipts[0]

    def _failure(self, event_name: str, target: Target, error: Exception) -> Callable[[Transaction], Saved[None]]:
        fact = Fact(
            event_name=event_name,
            target=target,
            result=Result.ERROR,
            reason="the operation failed unexpectedly; nothing was changed",
            error_type=type(error).__name__,
        )
        return self._work(event_name, target, lambda _transaction, _now_ns: Decision([Step(fact=fact)], None))

    def _save(
        self, transaction: Transaction, steps: Sequence[Step], now_ns: int
    ) -> tuple[Sequence[tuple[AuditedSpan, AuditRecord]], Sequence[Receipt]]:
        marks: list[tuple[AuditedSpan, AuditRecord]] = []
        receipts: list[Receipt] = []
        for step in steps:
            span = step.span or self.span
            record = record_of(step.fact, self.context, span.ref, step.record_id or self.services.new_id(), now_ns)
            receipts.append(transaction.save(Transition(record=record, job=step.job, writes=step.writes)))
            marks.append((span, record))
        return marks, receipts


def asks_for_another(template: Template | None) -> bool:
    """True when another than the creator must decide on a job; also when its template, which says so, is gone."""
    return template is None or template.distinct_confirmer


def _creator(job: Job) -> Participant:
    return Participant(job.created_by, job.created_by_issuer, job.created_by_person)


def result_of(refusal: RefusedError) -> Result:
    """Return the result of a refused request: `denied` for lack of a right, else `rejected`."""
    return Result.DENIED if isinstance(refusal, ForbiddenError) else Result.REJECTED


def refused_fact(event_name: str, target: Target, refusal: RefusedError) -> Fact:
    """Return the fact that a request was refused."""
    return Fact(
        event_name=event_name,
        target=target,
        result=result_of(refusal),
        changes=None if refusal.filter_text is None else {"filter": change(None, refusal.filter_text)},
        reason=refusal.detail,
        error_type=refusal.error_type,
    )
