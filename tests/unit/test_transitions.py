"""Every pair of state and operation: where it leads, that it changes nothing, or that it is refused."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec
import pytest

from service.errors import ForbiddenError, PlanMismatchError, RefusedError, TransitionRefusedError
from service.jobs import transitions
from service.jobs.model import Confirmation, Job, JobId, Limits, Plan, Rejection, RunRequest, Status, TenantId
from telemetry.audit.record import Actor

PLAN = Plan(
    argv=("true",),
    environment={},
    pass_environment=(),
    timeout_ms=1000,
    max_attempts=3,
    retry_exit_codes=None,
    limits=Limits(memory_bytes=2**20, cpu_seconds=1, output_bytes=1024),
    inputs={},
    sha256="a" * 64,
)
REQUEST = RunRequest(
    initiator=Actor("anna", "user", "key"), record_id="r-1", request_id="q-1", traceparent="00-1-1-01", tracestate=None
)
NOW_NS = 2_000
BERTA = Actor("berta", "user", "key")
CONFIRMATION = Confirmation(by=BERTA, at_ns=NOW_NS, notes="sound", plan_sha256=PLAN.sha256, record_id="r-2")
REJECTION = Rejection(by=BERTA, at_ns=NOW_NS, reason="wrong", plan_sha256=PLAN.sha256, record_id="r-3")
REFUSED: Final = "refused"
NOOP: Final = "noop"

Change: TypeAlias = Callable[[Job], Job | None]

OPERATIONS: Mapping[str, Change] = {
    "accept_input": lambda job: transitions.accept_input(job, NOW_NS),
    "draft": lambda job: transitions.draft(job, lambda: PLAN, NOW_NS),
    "confirm": lambda job: transitions.confirm(job, CONFIRMATION, is_creator=False, distinct_confirmer=True),
    "reject": lambda job: transitions.reject(job, REJECTION, is_creator=False, distinct_confirmer=True),
    "trigger": lambda job: transitions.trigger(job, REQUEST, requires_confirmation=False, now_ns=NOW_NS),
    "trigger, required": lambda job: transitions.trigger(job, REQUEST, requires_confirmation=True, now_ns=NOW_NS),
    "retry": lambda job: transitions.retry(job, REQUEST, requires_confirmation=True, now_ns=NOW_NS),
    "cancel": lambda job: transitions.cancel(job, NOW_NS),
    "claim": lambda job: transitions.claim(job, NOW_NS),
    "succeed": lambda job: transitions.succeed(job, NOW_NS),
    "fail": lambda job: transitions.fail(job, REQUEST, is_retryable=True, not_before_ns=9_000, now_ns=NOW_NS),
    "fail for good": lambda job: transitions.fail(job, REQUEST, is_retryable=False, not_before_ns=9_000, now_ns=NOW_NS),
    "release": lambda job: transitions.release(job, REQUEST, NOW_NS),
}

# Rows are operations, columns the states in the order of `Status`; a word is the state after, `-` a refusal.
TABLE: Final = """
operation         | created     draft_ready confirmed queued    running   succeeded failed    cancelled rejected
accept_input      | created     -           -         -         -         -         -         -         -
draft             | draft_ready noop        -         -         -         -         -         -         -
confirm           | -           confirmed   noop      noop      noop      -         -         -         -
reject            | -           rejected    rejected  -         -         -         -         -         noop
trigger           | -           queued      queued    noop      noop      -         -         -         -
trigger, required | -           -           queued    noop      noop      -         -         -         -
retry             | -           -           -         noop      noop      -         queued    -         -
cancel            | cancelled   cancelled   cancelled cancelled cancelled -         -         noop      -
claim             | -           -           -         running   -         -         -         -         -
succeed           | -           -           -         -         succeeded -         -         -         -
fail              | -           -           -         -         queued    -         -         -         -
fail for good     | -           -           -         -         failed    -         -         -         -
release           | -           -           -         -         queued    -         -         -         -
"""


def _job(status: Status) -> Job:
    """Return a job that came to this state in the ordinary way."""
    is_drafted = status is not Status.CREATED
    is_confirmed = is_drafted and status not in {Status.DRAFT_READY, Status.REJECTED}
    has_run = status in {Status.RUNNING, Status.SUCCEEDED, Status.FAILED}
    return Job(
        job_id=JobId("job-1"),
        tenant_id=TenantId("default"),
        template="shell",
        parameters={},
        status=status,
        version=5,
        created_by="anna",
        created_ns=1_000,
        updated_ns=1_500,
        trace_id="0" * 31 + "1",
        plan=PLAN if is_drafted else None,
        confirmed_by="berta" if is_confirmed else None,
        run=int(has_run),
        attempts_left=2 if status is Status.RUNNING else 0,
        request=REQUEST if has_run or status is Status.QUEUED else None,
    )


def _pairs() -> list[tuple[str, Status, str]]:
    header, *rows = TABLE.strip().splitlines()
    states = [Status(word) for word in header.partition("|")[2].split()]
    pairs: list[tuple[str, Status, str]] = []
    for row in rows:
        operation, _, cells = row.partition("|")
        pairs += [(operation.strip(), state, cell) for state, cell in zip(states, cells.split(), strict=True)]
    return pairs


def test_the_table_is_complete() -> None:
    """Every operation meets every state exactly once."""
    pairs = [(operation, state) for operation, state, _ in _pairs()]
    assert sorted(pairs) == sorted((operation, state) for operation in OPERATIONS for state in Status)


@pytest.mark.parametrize(("operation", "state", "expected"), _pairs())
def test_an_operation_meets_a_state(operation: str, state: Status, expected: str) -> None:
    """The operation leads to the next version in the expected state, changes nothing, or is refused with a reason."""
    job = _job(state)
    if expected == "-":
        with pytest.raises(TransitionRefusedError) as refused:
            OPERATIONS[operation](job)
        assert len(refused.value.detail) > 20
        return
    after = OPERATIONS[operation](job)
    if expected == NOOP:
        assert after is None
        return
    assert after is not None
    assert (after.status, after.version, after.updated_ns) == (Status(expected), 6, NOW_NS)
    unchanged = ("job_id", "tenant_id", "template", "parameters", "created_by", "created_ns", "trace_id")
    assert [getattr(after, name) for name in unchanged] == [getattr(job, name) for name in unchanged]


def test_time_never_runs_back() -> None:
    """A clock that stepped back does not make a version older than the one before."""
    assert transitions.cancel(_job(Status.RUNNING), 10) == msgspec.structs.replace(
        _job(Status.RUNNING), status=Status.CANCELLED, version=6, updated_ns=1_500
    )


def test_a_plan_is_rendered_only_when_a_draft_is_allowed() -> None:
    """A draft that changes nothing, or is refused, asks for no plan."""

    def render() -> Plan:
        raise AssertionError("a plan was asked for")

    assert transitions.draft(_job(Status.DRAFT_READY), render, NOW_NS) is None
    with pytest.raises(TransitionRefusedError):
        transitions.draft(_job(Status.QUEUED), render, NOW_NS)
    drafted = transitions.draft(_job(Status.CREATED), lambda: PLAN, NOW_NS)
    assert drafted is not None
    assert drafted.plan == PLAN


@pytest.mark.parametrize("state", Status)
def test_the_creator_never_decides_where_two_are_asked_for(state: Status) -> None:
    """Four eyes hold in every state, also where the decision would change nothing; the creator may cancel instead."""
    with pytest.raises(ForbiddenError):
        transitions.confirm(_job(state), CONFIRMATION, is_creator=True, distinct_confirmer=True)
    with pytest.raises(ForbiddenError, match="cancel it instead"):
        transitions.reject(_job(state), REJECTION, is_creator=True, distinct_confirmer=True)
    assert not transitions.may_decide(_job(state), is_creator=True, distinct_confirmer=True)


def test_the_creator_may_decide_where_one_is_enough() -> None:
    """Without the four-eyes rule the creator's decision counts, and is stored with who made it."""
    job = _job(Status.DRAFT_READY)
    confirmed = transitions.confirm(job, CONFIRMATION, is_creator=True, distinct_confirmer=False)
    rejected = transitions.reject(job, REJECTION, is_creator=True, distinct_confirmer=False)
    assert confirmed is not None
    assert rejected is not None
    assert (confirmed.confirmed_by, confirmed.confirmation, confirmed.rejection) == ("berta", CONFIRMATION, None)
    assert (rejected.confirmed_by, rejected.confirmation, rejected.rejection) == (None, None, REJECTION)


def test_a_rejection_keeps_the_confirmation_before_it() -> None:
    """What was confirmed first and then rejected tells both."""
    confirmed = transitions.confirm(_job(Status.DRAFT_READY), CONFIRMATION, is_creator=False, distinct_confirmer=True)
    assert confirmed is not None
    rejected = transitions.reject(confirmed, REJECTION, is_creator=False, distinct_confirmer=True)
    assert rejected is not None
    assert (rejected.confirmation, rejected.rejection) == (CONFIRMATION, REJECTION)


@pytest.mark.parametrize("state", Status)
def test_what_has_a_plan_may_be_decided(state: Status) -> None:
    """An approver may decide, and so look at the records, from the draft on, whatever became of the job."""
    job = _job(state)
    assert transitions.may_decide(job, is_creator=False, distinct_confirmer=True) == (state is not Status.CREATED)
    assert transitions.may_decide(job, is_creator=True, distinct_confirmer=False) == (state is not Status.CREATED)


@pytest.mark.parametrize("state", [Status.DRAFT_READY, Status.CONFIRMED, Status.QUEUED, Status.RUNNING])
def test_only_the_plan_that_was_seen_is_confirmed(state: Status) -> None:
    """A confirmation of another plan is refused, also when the job is confirmed already."""
    other = msgspec.structs.replace(CONFIRMATION, plan_sha256="b" * 64)
    with pytest.raises(PlanMismatchError):
        transitions.confirm(_job(state), other, is_creator=False, distinct_confirmer=False)


@pytest.mark.parametrize("state", [Status.DRAFT_READY, Status.CONFIRMED, Status.REJECTED])
def test_only_the_plan_that_is_named_is_rejected(state: Status) -> None:
    """A rejection of another plan is refused, also when the job is rejected already."""
    other = msgspec.structs.replace(REJECTION, plan_sha256="b" * 64)
    with pytest.raises(PlanMismatchError):
        transitions.reject(_job(state), other, is_creator=False, distinct_confirmer=False)


def test_a_job_that_went_on_without_a_confirmation_cannot_be_confirmed() -> None:
    """Where nobody confirmed before the run, a later confirmation is no no-op: it would claim what never was."""
    unconfirmed = msgspec.structs.replace(_job(Status.RUNNING), confirmed_by=None)
    with pytest.raises(TransitionRefusedError):
        transitions.confirm(unconfirmed, CONFIRMATION, is_creator=False, distinct_confirmer=False)


def test_a_retry_does_not_get_round_a_confirmation() -> None:
    """A template that asks for a confirmation now keeps jobs from running again that never had one."""
    unconfirmed = msgspec.structs.replace(_job(Status.FAILED), confirmed_by=None)
    assert transitions.retry(unconfirmed, REQUEST, requires_confirmation=False, now_ns=NOW_NS) is not None
    with pytest.raises(TransitionRefusedError):
        transitions.retry(unconfirmed, REQUEST, requires_confirmation=True, now_ns=NOW_NS)


def test_attempts_are_counted_down() -> None:
    """Trigger and retry give all attempts, a claim takes one, a failure keeps the rest, a release gives it back."""
    queued = OPERATIONS["trigger"](_job(Status.CONFIRMED))
    assert queued is not None
    assert (queued.attempts_left, queued.run, queued.request, queued.not_before_ns) == (3, 0, REQUEST, NOW_NS)
    running = transitions.claim(queued, NOW_NS)
    assert (running.attempts_left, running.run) == (2, 1)
    failed = OPERATIONS["fail"](running)
    assert failed is not None
    assert (failed.attempts_left, failed.run, failed.not_before_ns) == (2, 1, 9_000)
    released = OPERATIONS["release"](running)
    assert released is not None
    assert (released.attempts_left, released.run, released.not_before_ns) == (3, 1, NOW_NS)
    retried = OPERATIONS["retry"](_job(Status.FAILED))
    assert retried is not None
    assert (retried.attempts_left, retried.run) == (3, 1)


def test_the_last_attempt_fails_the_job() -> None:
    """A failure that might pass ends the job all the same when no attempt is left."""
    last = msgspec.structs.replace(_job(Status.RUNNING), attempts_left=0)
    failed = OPERATIONS["fail"](last)
    assert failed is not None
    assert failed.status is Status.FAILED


@pytest.mark.parametrize("state", Status)
def test_final_states_are_those_that_no_worker_leaves(state: Status) -> None:
    """In a final state every operation of a worker is refused; in the others one of them or a client leads on."""
    workers = ("claim", "succeed", "fail", "fail for good", "release", "cancel")
    leads_on = []
    for operation in workers:
        try:
            leads_on.append(OPERATIONS[operation](_job(state)) is not None)
        except RefusedError:
            leads_on.append(False)
    assert any(leads_on) is not state.is_final
