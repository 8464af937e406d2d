"""What clients may do with jobs, and what repeating it does: on a real ledger, without HTTP."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest

from service.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyConflictError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PlanMismatchError,
    PreconditionFailedError,
    RefusedError,
    TransitionRefusedError,
)
from service.jobs.model import Job, Status
from service.operations.base import Committed
from service.operations.jobs import MAX_INPUTS
from service.operations.steps import Ended
from service.roles import APPROVER, OPERATOR, VIEWER
from telemetry import names
from tests.support.both_stores import BOTH
from tests.support.jobs import TEMPLATES, Jobs

FAILED = Ended(error_type="exit", reason="it failed", exit_code=1, duration_ms=1, is_retryable=False)
ABSENT = "019b76da-a800-7fff-8000-ffffffffffff"

pytestmark = pytest.mark.stores(*BOTH)


def _drafted(jobs: Jobs, template: str = "guarded") -> Job:
    client = jobs.client("anna")
    parameters = {} if template == "guarded" else {"script": "true"}
    return client.draft(client.create(template, parameters).value.job_id).value


def _refused(error: type[RefusedError], jobs: Jobs, call: Callable[[], object]) -> str:
    """Expect a refusal whose record is committed, and that nothing else is; return the record's result."""
    before = len(jobs.records())
    with pytest.raises(error) as refused:
        call()
    assert refused.type is error
    records = jobs.records()[before:]
    assert [record.record_id for record in records] == [refused.value.receipt.record_id]
    assert records[0].attributes[names.ERROR_TYPE] == error.error_type
    assert names.AUDITRACE_TARGET_VERSION not in records[0].attributes
    return records[0].result


def _fail(jobs: Jobs) -> None:
    operations = jobs.operations()
    claimed = operations.claim()
    assert claimed is not None
    operations.finish(claimed, FAILED)


# The story of a job.


def test_each_operation_leaves_one_record_of_its_name(jobs: Jobs) -> None:
    """From creation to cancellation, each request has one record with its changes and the version that it made."""
    anna, berta = jobs.client("anna"), jobs.client("berta")
    made = [anna.create("guarded", {})]
    job_id = made[0].value.job_id
    made.append(anna.write_input(job_id, "a", b"abc"))
    made.append(anna.draft(job_id))
    made.append(berta.confirm(job_id, run=False))
    made.append(berta.run(job_id))
    _fail(jobs)
    made.append(anna.retry(job_id))
    made.append(anna.cancel(job_id))
    records = {record.record_id: record for record in jobs.records(job_id)}
    stories = [
        "job.create success >created",
        "input.write success",
        "job.draft success created>draft_ready",
        "job.confirm success draft_ready>confirmed",
        "job.run.trigger success confirmed>queued",
        "job.retry success failed>queued",
        "job.cancel success queued>cancelled",
    ]
    assert [records[one.receipt.record_id].story for one in made] == stories
    for one in made:
        record = records[one.receipt.record_id]
        assert record.attributes[names.AUDITRACE_TARGET_VERSION] == one.value.version
        assert record.attributes[names.AUDITRACE_JOB_ID] == job_id
    assert records[made[0].receipt.record_id].changes["template"] == {"to": "guarded"}
    assert records[made[1].receipt.record_id].changes["size"] == {"to": 3}
    plan = made[2].value.plan
    assert plan is not None
    assert records[made[2].receipt.record_id].changes["plan_sha256"] == {"to": plan.sha256}
    assert records[made[3].receipt.record_id].changes["confirmed"] == {"from": False, "to": True}
    assert records[made[5].receipt.record_id].changes["run"] == {"from": 1, "to": 2}


def test_a_plan_that_no_record_can_hold_is_cut_there_and_nowhere_else(jobs: Jobs) -> None:
    """The draft is made, its record lists the plan as cut, and the job keeps the plan whose hash is confirmed."""
    script = "é" * 40_000
    jobs.templates(f'[templates.long]\ndescription = "d"\ncommand = ["echo", "{script}"]\n')
    client = jobs.client("anna")
    drafted = client.draft(client.create("long", {}).value.job_id).value
    record = jobs.records(drafted.job_id)[-1]
    assert drafted.plan is not None
    assert drafted.plan.argv == ("echo", script)
    assert record.attributes[names.AUDITRACE_TRUNCATED] == [names.AUDITRACE_JOB_PLAN]
    assert record.attributes[names.AUDITRACE_JOB_PLAN].startswith('{"argv":["echo","é')
    assert record.attributes[names.AUDITRACE_JOB_PLAN_SHA256] == drafted.plan.sha256
    assert client.confirm(drafted.job_id).value.status is Status.QUEUED


def test_a_confirmation_also_triggers_the_run(jobs: Jobs) -> None:
    """One request, two records in one transaction; the confirmer is the initiator of the run."""
    job = _drafted(jobs)
    done = jobs.client("berta").confirm(job.job_id)
    assert jobs.stories(job.job_id)[-2:] == [
        "job.confirm success draft_ready>confirmed",
        "job.run.trigger success confirmed>queued",
    ]
    confirm, trigger = jobs.records(job.job_id)[-2:]
    assert [receipt.record_id for receipt in done.receipts] == [confirm.record_id, trigger.record_id]
    assert done.receipts[1].sequence_number == done.receipts[0].sequence_number + 1
    assert done.value.status is Status.QUEUED
    assert done.value.request is not None
    assert done.value.request.initiator.id == "berta"
    assert done.value.request.record_id == trigger.record_id


def test_the_same_state_again_is_a_noop(jobs: Jobs) -> None:
    """What is already so is a success that changes nothing, and is recorded as such, without a version."""
    anna, berta = jobs.client("anna"), jobs.client("berta")
    job = _drafted(jobs)
    anna.draft(job.job_id)
    assert jobs.records(job.job_id)[-1].story == "job.draft noop"
    for story in ("job.confirm success draft_ready>confirmed", "job.confirm noop"):
        berta.confirm(job.job_id, run=False)
        assert jobs.records(job.job_id)[-1].story == story
    berta.run(job.job_id)
    version = jobs.job(job.job_id).version
    for call, name in [
        (berta.run, "job.run.trigger"),
        (berta.confirm, "job.confirm"),
        (anna.retry, "job.retry"),
    ]:
        done = call(job.job_id)
        record = jobs.records(job.job_id)[-1]
        assert (record.story, record.record_id) == (f"{name} noop", done.receipt.record_id)
        assert names.AUDITRACE_TARGET_VERSION not in record.attributes
    assert jobs.job(job.job_id).version == version
    anna.cancel(job.job_id)
    anna.cancel(job.job_id)
    assert jobs.records(job.job_id)[-1].story == "job.cancel noop"


# What is refused.


def test_what_is_not_valid_now_is_rejected_on_record(jobs: Jobs) -> None:
    """Each refusal has one record, in the trail of its job, and the job stays as it was."""
    anna, berta = jobs.client("anna"), jobs.client("berta")
    created = anna.create("guarded", {}).value
    drafted = _drafted(jobs)
    for call in (berta.confirm, berta.run, anna.retry):
        assert _refused(TransitionRefusedError, jobs, partial(call, created.job_id)) == "rejected"
    assert _refused(TransitionRefusedError, jobs, lambda: anna.run(drafted.job_id)) == "rejected"
    assert _refused(TransitionRefusedError, jobs, lambda: anna.write_input(drafted.job_id, "a", b"")) == "rejected"
    assert _refused(PlanMismatchError, jobs, lambda: berta.confirm(drafted.job_id, plan_sha256="0" * 64)) == "rejected"
    assert _refused(PreconditionFailedError, jobs, lambda: anna.draft(created.job_id, if_match=7)) == "rejected"
    assert _refused(InvalidRequestError, jobs, lambda: anna.create("guarded", {"surplus": 1})) == "rejected"
    assert jobs.records()[-1].attributes[names.AUDIT_TARGET_TYPE] == "template"
    assert _refused(InvalidRequestError, jobs, lambda: anna.create("no-such-template", {})) == "rejected"
    assert jobs.records()[-1].attributes[names.AUDIT_TARGET_TYPE] == "http.endpoint"
    assert jobs.job(created.job_id) == created
    assert jobs.job(drafted.job_id) == drafted
    assert jobs.stories(created.job_id)[1:] == [
        "job.confirm rejected",
        "job.run.trigger rejected",
        "job.retry rejected",
        "job.draft rejected",
    ]


def test_roles_tenants_and_four_eyes_are_denied_on_record(jobs: Jobs) -> None:
    """Who may not, is denied before anything is looked at; another tenant's job does not exist."""
    job = _drafted(jobs)
    viewer = jobs.client("vera", VIEWER)
    for call in (viewer.draft, viewer.run, viewer.retry, viewer.cancel, viewer.confirm):
        assert _refused(ForbiddenError, jobs, partial(call, job.job_id)) == "denied"
    assert _refused(ForbiddenError, jobs, lambda: viewer.create("guarded", {})) == "denied"
    assert _refused(ForbiddenError, jobs, lambda: jobs.client("olga", OPERATOR).confirm(job.job_id)) == "denied"
    assert _refused(ForbiddenError, jobs, lambda: jobs.client("anna", APPROVER).confirm(job.job_id)) == "denied"
    assert _refused(ForbiddenError, jobs, lambda: jobs.client("app", APPROVER).run(job.job_id)) == "denied"
    stranger = jobs.client("anna", tenant="other")
    assert _refused(NotFoundError, jobs, lambda: stranger.cancel(job.job_id)) == "rejected"
    assert jobs.records()[-1].attributes[names.AUDITRACE_TENANT_ID] == "other"
    assert _refused(NotFoundError, jobs, lambda: jobs.client("olga", OPERATOR).cancel(ABSENT)) == "rejected"
    assert jobs.job(job.job_id) == job


def test_a_template_that_is_gone_is_not_run(jobs: Jobs) -> None:
    """What operators no longer offer cannot be drafted, confirmed, run or retried; it can be cancelled or rejected.

    Its template cannot say any more who may reject it, so the creator may not.
    """
    anna, berta = jobs.client("anna"), jobs.client("berta")
    created = anna.create("guarded", {}).value
    drafted = _drafted(jobs)
    confirmed = berta.confirm(_drafted(jobs).job_id, run=False).value
    failed = jobs.queued("true")
    _fail(jobs)
    jobs.templates("")
    for call, job in [
        (anna.draft, created),
        (berta.confirm, drafted),
        (anna.run, confirmed),
        (anna.retry, failed),
    ]:
        assert _refused(ConflictError, jobs, partial(call, job.job_id)) == "rejected"
        assert "not offered any more" in jobs.records()[-1].attributes[names.AUDITRACE_REASON]
    assert anna.cancel(created.job_id).value.status is Status.CANCELLED
    assert _refused(ForbiddenError, jobs, lambda: anna.reject(drafted.job_id)) == "denied"
    assert berta.reject(drafted.job_id).value.status is Status.REJECTED


def test_a_template_that_became_stricter_counts(jobs: Jobs) -> None:
    """A confirmation that operators ask for since the draft, or since the failure, is asked for."""
    drafted = _drafted(jobs, "shell")
    failed = jobs.queued("true")
    _fail(jobs)
    jobs.templates(TEMPLATES.replace("[templates.shell]\n", "[templates.shell]\nrequires_confirmation = true\n"))
    client = jobs.client("anna")
    assert _refused(TransitionRefusedError, jobs, lambda: client.run(drafted.job_id)) == "rejected"
    assert _refused(TransitionRefusedError, jobs, lambda: client.retry(failed.job_id)) == "rejected"
    assert client.confirm(drafted.job_id).value.status is Status.QUEUED


def test_a_template_that_changed_does_not_change_a_plan(jobs: Jobs) -> None:
    """The plan of a draft stays as it was previewed; a job without a value for a new parameter gets no plan."""
    drafted = _drafted(jobs, "shell")
    created = jobs.client("anna").create("shell", {"script": "true"}).value
    jobs.templates(
        TEMPLATES.replace('{ type = "string", default = "job" }', '{ type = "string" }\nnew = { type = "string" }')
    )
    assert jobs.client("anna").run(drafted.job_id).value.plan == drafted.plan
    assert _refused(ConflictError, jobs, lambda: jobs.client("anna").draft(created.job_id)) == "rejected"


def test_inputs_are_versions_of_the_job_and_part_of_its_plan(jobs: Jobs) -> None:
    """An input counts as a change, the same bytes again as none; the plan's hash covers names and bytes."""
    anna = jobs.client("anna")
    hashes = []
    for payload in (b"1", b"2"):
        job = anna.create("guarded", {}).value
        assert anna.write_input(job.job_id, "a", b"0").value.version == 2
        assert anna.write_input(job.job_id, "a", payload).value.version == 3
        assert jobs.records(job.job_id)[-1].changes["name"] == {"from": "a", "to": "a"}
        assert anna.write_input(job.job_id, "a", payload).value.version == 3
        assert jobs.records(job.job_id)[-1].story == "input.write noop"
        plan = anna.draft(job.job_id).value.plan
        assert plan is not None
        hashes.append(plan.sha256)
    assert hashes[0] != hashes[1]
    job = anna.create("guarded", {}).value
    for number in range(MAX_INPUTS):
        anna.write_input(job.job_id, f"a{number}", b"")
    assert _refused(LimitExceededError, jobs, lambda: anna.write_input(job.job_id, "more", b"")) == "rejected"
    assert anna.write_input(job.job_id, "a0", b"x").value.version == MAX_INPUTS + 2


# Repeating a request.


def test_the_same_key_and_body_make_one_job(jobs: Jobs) -> None:
    """A repeated creation answers with the job made first; its record is a no-op with a receipt of its own."""
    anna = jobs.client("anna")
    first = anna.create("guarded", {}, key="k")
    anna.draft(first.value.job_id)
    again = anna.create("guarded", {}, key="k")
    assert not first.is_replay
    assert again.is_replay
    assert again.value == jobs.job(first.value.job_id)
    assert again.receipt.record_id != first.receipt.record_id
    made, repeated = jobs.records(first.value.job_id)[0], jobs.records(first.value.job_id)[-1]
    assert (repeated.story, repeated.record_id) == ("job.create noop", again.receipt.record_id)
    hashes = [record.attributes[names.AUDITRACE_IDEMPOTENCY_KEY_HASH] for record in (made, repeated)]
    assert hashes[0] == hashes[1]
    assert jobs.store.rows("SELECT count(*) FROM jobs") == [(1,)]


def test_the_same_key_with_another_request_is_a_conflict(jobs: Jobs) -> None:
    """Another body, or another job on the same route, is refused on record, and the first stays as it was."""
    anna = jobs.client("anna")
    first = anna.create("guarded", {}, key="k").value
    other_body = {"script": "true"}
    assert _refused(IdempotencyConflictError, jobs, lambda: anna.create("shell", other_body, key="k")) == "rejected"
    second = anna.create("guarded", {}, key="l").value
    anna.draft(first.job_id, key="d")
    assert _refused(IdempotencyConflictError, jobs, lambda: anna.draft(second.job_id, key="d")) == "rejected"
    assert jobs.job(second.job_id).status is Status.CREATED


def test_a_key_is_of_one_actor_in_one_tenant_on_one_route(jobs: Jobs) -> None:
    """Nobody's key gets in the way of another's, and one key may serve a create and a draft."""
    made = {
        jobs.client("anna").create("guarded", {}, key="k").value.job_id,
        jobs.client("berta").create("guarded", {}, key="k").value.job_id,
        jobs.client("anna", tenant="other").create("guarded", {}, key="k").value.job_id,
    }
    assert len(made) == 3
    (anna_s, *_) = [row[0] for row in jobs.store.rows("SELECT job_id FROM jobs ORDER BY created_ns")]
    assert jobs.client("anna").draft(anna_s, key="k").value.status is Status.DRAFT_READY


def test_a_noop_is_remembered(jobs: Jobs) -> None:
    """A retry that found the job queued does not run it again when it is repeated after the job failed."""
    job = jobs.queued("true")
    client = jobs.client("anna")
    assert not client.retry(job.job_id, key="k").is_replay
    _fail(jobs)
    again = client.retry(job.job_id, key="k")
    assert again.is_replay
    assert again.value.status is Status.FAILED
    assert jobs.records(job.job_id)[-1].story == "job.retry noop"
    assert client.retry(job.job_id, key="another").value.status is Status.QUEUED


def test_a_repeated_trigger_does_not_run_twice(jobs: Jobs) -> None:
    """Every operation that was carried out once under a key is a no-op afterwards, whatever became of the job."""
    anna, berta = jobs.client("anna"), jobs.client("berta")
    job = _drafted(jobs)
    berta.confirm(job.job_id, key="c")
    _fail(jobs)
    assert berta.confirm(job.job_id, key="c").is_replay
    anna.retry(job.job_id, key="r")
    _fail(jobs)
    assert anna.retry(job.job_id, key="r").is_replay
    assert jobs.job(job.job_id).status is Status.FAILED
    anna.retry(job.job_id)
    anna.cancel(job.job_id, key="x")
    assert anna.cancel(job.job_id, key="x").is_replay
    assert [run.number for run in jobs.runs(job.job_id)] == [1, 2]


def test_a_refused_request_may_be_sent_again(jobs: Jobs) -> None:
    """A refusal has done nothing, so its key is free: once the reason is gone the request is carried out."""
    anna = jobs.client("anna")
    job = anna.create("shell", {"script": "true"}).value
    assert _refused(TransitionRefusedError, jobs, lambda: anna.run(job.job_id, key="k")) == "rejected"
    anna.draft(job.job_id)
    assert anna.run(job.job_id, key="k").value.status is Status.QUEUED


def test_a_replay_asks_for_the_role_again(jobs: Jobs) -> None:
    """Who lost the role since then learns nothing from a key that was used before."""
    jobs.client("anna").create("guarded", {}, key="k")
    refusal = _refused(ForbiddenError, jobs, lambda: jobs.client("anna", VIEWER).create("guarded", {}, key="k"))
    assert refusal == "denied"


def test_a_key_is_forgotten_after_a_day(jobs: Jobs) -> None:
    """24 hours later the key makes a new job."""
    anna = jobs.client("anna")
    first = anna.create("guarded", {}, key="k").value
    jobs.clock.advance(23 * 3600)
    assert anna.create("guarded", {}, key="k").is_replay
    jobs.clock.advance(3601)
    assert anna.create("guarded", {}, key="k").value.job_id != first.job_id


# Many at once.


def _at_once(calls: list[Callable[[], Committed[Job]]]) -> list[Committed[Job] | RefusedError]:
    """Start all calls together, each in a thread of its own, and return what each came to."""
    barrier = threading.Barrier(len(calls))

    def outcome(call: Callable[[], Committed[Job]]) -> Committed[Job] | RefusedError:
        barrier.wait()
        try:
            return call()
        except RefusedError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_many_confirmations_counts(jobs: Jobs, tmp_path: Path, processes: int) -> None:
    """32 clients, of one process or of two, confirm the same job at once: one success, 31 no-ops, one run."""
    job = _drafted(jobs)
    opened = [jobs] + [jobs.beside(number) for number in range(1, processes)]
    try:
        clients = [opened[number % processes].client(f"approver-{number}", APPROVER) for number in range(32)]
        _at_once([partial(client.confirm, job.job_id) for client in clients])
    finally:
        for other in opened[1:]:
            other.close()
    confirms = [record for record in jobs.records(job.job_id) if record.event_name == names.EVENT_JOB_CONFIRM]
    assert sorted(record.result for record in confirms) == ["noop"] * 31 + ["success"]
    triggers = [
        record.result for record in jobs.records(job.job_id) if record.event_name == names.EVENT_JOB_RUN_TRIGGER
    ]
    assert triggers == ["success"]
    operations = jobs.operations()
    assert operations.claim() is not None
    assert operations.claim() is None
    assert jobs.store.verify().findings == ()


def test_one_of_many_operations_of_each_kind_counts(jobs: Jobs) -> None:
    """Runs and cancellations by many at once: one of each changes the job, the others change nothing or are refused."""
    job = _drafted(jobs, "shell")
    client = jobs.client("anna")
    _at_once([lambda: client.run(job.job_id)] * 8 + [lambda: client.cancel(job.job_id)] * 8)
    records = jobs.records(job.job_id)[2:]
    assert len(records) == 16
    assert sum(record.story == "job.run.trigger success draft_ready>queued" for record in records) <= 1
    assert sum(record.changes.get("status", {}).get("to") == "cancelled" for record in records) == 1
    assert {record.result for record in records} <= {"success", "noop", "rejected"}
    assert jobs.job(job.job_id).status is Status.CANCELLED


def test_one_key_at_once_makes_one_job(jobs: Jobs, tmp_path: Path) -> None:
    """A request that is sent many times at the same moment, to two processes, is carried out once."""
    other = jobs.beside(1)
    try:
        clients = [jobs.client("anna"), other.client("anna")] * 8
        outcomes = _at_once([partial(client.create, "guarded", {}, key="k") for client in clients])
    finally:
        other.close()
    made = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
    assert len(made) == 16
    assert sum(not outcome.is_replay for outcome in made) == 1
    assert len({outcome.value.job_id for outcome in made}) == 1


def test_workers_at_once_claim_each_job_once(jobs: Jobs, tmp_path: Path) -> None:
    """Workers of two processes that claim at the same moment never get the same job."""
    queued = {jobs.queued("true").job_id for _ in range(12)}
    other = jobs.beside(1)
    try:
        claimers = [jobs.operations(), other.operations()] * 8
        with ThreadPoolExecutor(len(claimers)) as threads:
            claims = list(threads.map(lambda operations: operations.claim(), claimers))
    finally:
        other.close()
    claimed = [claim.job.job_id for claim in claims if claim is not None]
    assert sorted(claimed) == sorted(queued)


def test_a_job_of_another_version_is_not_overwritten(jobs: Jobs) -> None:
    """A change that was decided on an older version is refused by the store, not merged."""
    job = _drafted(jobs)
    stale = msgspec.structs.replace(job, version=job.version, status=Status.CANCELLED)
    with pytest.raises(ConflictError):
        jobs.lane.submit(
            lambda transaction: transaction.save(jobs.store.transition(stale)),
        ).result()
    assert jobs.job(job.job_id) == job
