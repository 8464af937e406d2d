"""The one way in which an operation is carried out: decide, save, commit, mark the span, answer or refuse.

By construction every attempt leaves a record: a refusal is saved in the same transaction in which it was decided,
and a failure of the code itself is saved in the next one.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from service.errors import AuditraceError, ForbiddenError, OperationFailedError, RefusedError
from service.jobs.model import Job
from service.jobs.templates import Templates
from service.ports import Clock, Ledger, NewId, Receipt, Transaction, Transition, Write
from service.records import AuditContext, Fact, record_of
from service.secrets import DeploymentSecret
from telemetry.audit.record import AuditRecord, Result, Target
from telemetry.tracing import AuditedSpan, Tracing

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What operations work with; made once by the composition root."""

    ledger: Ledger
    templates: Templates
    secret: DeploymentSecret
    tracing: Tracing
    clock: Clock
    new_id: NewId


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an operation: its fact, and what is written with it. `job` None changes no job."""

    fact: Fact
    job: Job | None = None
    writes: tuple[Write, ...] = ()
    span: AuditedSpan | None = None
    record_id: str | None = None


class Committed(msgspec.Struct, Generic[T], frozen=True):
    """A committed operation: what it yields, and the receipts of its records, the one of its own name first."""

    value: T
    receipts: Sequence[Receipt]
    is_replay: bool = False

    @property
    def receipt(self) -> Receipt:
        """The receipt of the record that carries the operation's own name."""
        return self.receipts[0]


class Decision(msgspec.Struct, Generic[T], frozen=True):
    """What an operation decided: the steps to save, in order, and what it yields.

    `spans` are spans in which nothing is recorded and that end with the commit.
    """

    steps: Sequence[Step]
    value: T
    is_replay: bool = False
    spans: Sequence[AuditedSpan] = ()


class Saved(msgspec.Struct, Generic[T], frozen=True):
    """What was written in a transaction; it counts once the lane has committed."""

    marks: Sequence[tuple[AuditedSpan, AuditRecord]]
    receipts: Sequence[Receipt]
    decision: Decision[T] | None
    refusal: RefusedError | None


async def committed(future: "Future[T]") -> T:
    """Wait for a lane; when the waiting task is cancelled (the client hung up), the work goes on undisturbed."""
    return await asyncio.shield(asyncio.wrap_future(future))


@contextmanager
def naming(receipt: Receipt) -> Generator[None]:
    """Name the record of what is committed in whatever error this block raises afterwards.

    Raises:
        AuditraceError: as raised in the block, with this receipt.
        OperationFailedError: the block broke.
    """
    try:
        yield
    except AuditraceError as error:
        error.receipt = receipt
        raise
    except Exception as error:
        raise OperationFailedError(receipt) from error


class Operation:
    """Carries out operations of one audit context, inside one span."""

    def __init__(self, services: Services, context: AuditContext, span: AuditedSpan) -> None:
        self.services = services
        self.context = context
        self.span = span

    async def attempt(
        self, event_name: str, target: Target, decide: Callable[[Transaction, int], Decision[T]]
    ) -> Committed[T]:
        """Carry out `decide` in a lane and return after the commit.

        Raises:
            RefusedError: as decided; its record is committed and named in `receipt`.
            TryLaterError: nothing was committed.
            OperationFailedError: `decide` broke; nothing was changed, and a record of that is committed.
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
        """The same for a thread that can wait: workers and commands."""
        try:
            saved = self.services.ledger.submit(self._work(event_name, target, decide)).result()
        except AuditraceError:
            raise
        except Exception as error:
            self._marked(self.services.ledger.submit(self._failure(event_name, target, error)).result())
            raise
        return self.conclude(saved)

    async def refuse(self, event_name: str, target: Target, refusal: RefusedError) -> None:
        """Commit the record of a refusal that was decided before an operation began (a malformed body, say)."""

        def decide(_transaction: Transaction, _now_ns: int) -> Decision[None]:
            raise refusal

        try:
            await self.attempt(event_name, target, decide)
        except RefusedError:
            return

    def save(self, transaction: Transaction, decision: Decision[T], now_ns: int) -> Saved[T]:
        """Write the steps of a decision into the open transaction."""
        marks: list[tuple[AuditedSpan, AuditRecord]] = []
        receipts: list[Receipt] = []
        for step in decision.steps:
            span = step.span or self.span
            record = self._record(step.fact, span, now_ns, step.record_id)
            receipts.append(transaction.save(Transition(record=record, job=step.job, writes=step.writes)))
            marks.append((span, record))
        return Saved(marks, receipts, decision, None)

    def conclude(self, saved: Saved[T]) -> Committed[T]:
        """After the commit: point the spans at their records, end those of this operation, and answer or refuse."""
        ending = {id(span): span for span, _ in saved.marks if span is not self.span}
        receipt = self._marked(saved)
        if saved.refusal is not None:
            saved.refusal.receipt = receipt
            raise saved.refusal
        if saved.decision is None:
            raise AssertionError("a committed operation has a decision or a refusal")
        for span in (*ending.values(), *saved.decision.spans):
            span.end()
        return Committed(saved.decision.value, saved.receipts, saved.decision.is_replay)

    def _work(
        self, event_name: str, target: Target, decide: Callable[[Transaction, int], Decision[T]]
    ) -> Callable[[Transaction], Saved[T]]:
        def work(transaction: Transaction) -> Saved[T]:
            now_ns = self.services.clock()
            try:
                decision = decide(transaction, now_ns)
            except RefusedError as refusal:
                if self.context.counts_refusals:
                    raise
                record = self._record(_refused(event_name, target, refusal), self.span, now_ns, None)
                receipt = transaction.save(Transition(record=record))
                return Saved([(self.span, record)], [receipt], None, refusal)
            return self.save(transaction, decision, now_ns)

        return work

    def _marked(self, saved: Saved[T]) -> Receipt:
        for span, record in saved.marks:
            span.mark(record)
        return saved.receipts[0]

    def _failure(self, event_name: str, target: Target, error: Exception) -> Callable[[Transaction], Saved[None]]:
        def work(transaction: Transaction) -> Saved[None]:
            fact = Fact(
                event_name=event_name,
                target=target,
                result=Result.ERROR,
                reason="the operation failed unexpectedly; nothing was changed",
                error_type=type(error).__name__,
            )
            record = self._record(fact, self.span, self.services.clock(), None)
            return Saved([(self.span, record)], [transaction.save(Transition(record=record))], None, None)

        return work

    def _record(self, fact: Fact, span: AuditedSpan, now_ns: int, record_id: str | None) -> AuditRecord:
        return record_of(fact, self.context, span.ref, record_id or self.services.new_id(), now_ns)


def _refused(event_name: str, target: Target, refusal: RefusedError) -> Fact:
    result = Result.DENIED if isinstance(refusal, ForbiddenError) else Result.REJECTED
    return Fact(
        event_name=event_name, target=target, result=result, reason=refusal.detail, error_type=refusal.error_type
    )
