"""What workers record of runs: claims, ends, hand-backs, reclaims; on a real ledger, without processes."""

from pathlib import Path

import pytest

from service.errors import DiskLowError, TransitionRefusedError
from service.jobs.model import Job, Run, RunStatus, Status
from service.operations.runs import CANCELLED, LEASE_EXPIRED, WORKER_SHUTDOWN, Claimed, RunOperations
from service.operations.steps import Ended
from service.store.watermark import DiskWatermark, WatermarkedLedger
from telemetry import names
from tests.support.both_stores import BOTH, SQLITE
from tests.support.jobs import Jobs, Record
from tests.support.poll_until import poll_until

SUCCESS = Ended(error_type=None, reason=None, exit_code=0, duration_ms=12, is_retryable=True)
FAILURE = Ended(error_type="exit", reason="the command exited with 3", exit_code=3, duration_ms=7, is_retryable=True)
HOPELESS = Ended(error_type="exit", reason="the command exited with 4", exit_code=4, duration_ms=7, is_retryable=False)
STOPPED = Ended(error_type=WORKER_SHUTDOWN, reason="stopped", exit_code=None, duration_ms=5, is_retryable=False)

pytestmark = pytest.mark.stores(*BOTH)


def _claim(operations: RunOperations) -> Claimed:
    claimed = operations.claim()
    assert claimed is not None
    return claimed


def _last(jobs: Jobs, job: Job) -> Record:
    return jobs.records(job.job_id)[-1]


def _last_run(jobs: Jobs, job: Job) -> Run:
    return jobs.runs(job.job_id)[-1]


def _asked(record: Record) -> tuple[object, ...]:
    """Return who asked for what this record says, and the record of that asking."""
    return tuple(
        record.attributes.get(name)
        for name in (
            names.AUDITRACE_INITIATOR_ID,
            names.AUDITRACE_INITIATOR_TYPE,
            names.AUDITRACE_INITIATOR_RECORD_ID,
            names.AUDITRACE_REQUEST_ID,
        )
    )


def test_a_claim_is_the_intent(jobs: Jobs) -> None:
    """Before anything is started, the job is running, its run has a lease, and the record says who asked for it."""
    job = jobs.queued("true")
    claimed = _claim(jobs.operations("worker-1"))
    asking, claiming = jobs.records(job.job_id)[-2:]
    assert claiming.story == "job.status.transition success queued>running"
    assert claiming.changes["run"] == {"to": 1}
    assert claiming.attributes[names.AUDITRACE_TARGET_VERSION] == claimed.job.version == 4
    assert claiming.attributes[names.AUDIT_ACTOR_ID] == "worker-1"
    assert claiming.attributes[names.AUDIT_ACTOR_TYPE] == "system"
    assert claiming.attributes[names.AUDITRACE_SOURCE] == "worker"
    request_id = asking.attributes[names.AUDITRACE_REQUEST_ID]
    assert _asked(claiming) == ("anna", "user", asking.record_id, request_id)
    assert jobs.job(job.job_id) == claimed.job
    assert _last_run(jobs, job) == claimed.run
    assert claimed.run.status is RunStatus.RUNNING


def test_nothing_is_claimed_that_is_not_due(jobs: Jobs) -> None:
    """Jobs that are not queued, or wait for their next attempt, are nobody's turn; nor is a running one."""
    operations = jobs.operations(retry_delay_s=30)
    jobs.client().create("shell", {"script": "true"})
    assert operations.claim() is None
    job = jobs.queued("true")
    claimed = _claim(operations)
    assert operations.claim() is None
    operations.finish(claimed, FAILURE)
    assert jobs.job(job.job_id).status is Status.QUEUED
    assert operations.claim() is None
    jobs.clock.advance(31)
    assert _claim(operations).run.number == 2


def test_a_success_is_recorded_with_what_it_left(jobs: Jobs) -> None:
    """The end of a run commits job, run, artifacts and record together."""
    job = jobs.queued("true")
    operations = jobs.operations()
    claimed = _claim(operations)
    ended = Ended(
        error_type=None, reason=None, exit_code=0, duration_ms=12, is_retryable=True, artifacts=[("out/a", b"abc")]
    )
    assert operations.finish(claimed, ended).status is Status.SUCCEEDED
    record, run = _last(jobs, job), _last_run(jobs, job)
    assert record.story == "job.status.transition success running>succeeded"
    assert record.changes["exit_code"] == {"to": 0}
    assert record.changes["duration_ms"] == {"to": 12}
    assert record.attributes[names.AUDITRACE_JOB_RUN] == 1
    assert record.attributes[names.AUDITRACE_JOB_PLAN_SHA256] == (claimed.job.plan.sha256 if claimed.job.plan else None)
    assert (run.status, run.exit_code, run.error_type) == (RunStatus.SUCCEEDED, 0, None)
    assert jobs.artifacts(job.job_id) == {"out/a": b"abc"}


def test_the_end_of_a_run_records_how_it_was(jobs: Jobs) -> None:
    """The record of the end has what the run used and left: sizes, memory, and each artifact with its SHA-256."""
    job = jobs.queued("true")
    ended = Ended(
        error_type="signal",
        reason="the command was killed by SIGSEGV",
        exit_code=None,
        signal="SIGSEGV",
        duration_ms=12,
        stdout_bytes=70_000,
        stderr_bytes=0,
        peak_memory_bytes=4096,
        is_retryable=False,
        artifacts=[("stdout", b"abc"), ("out/a", b"")],
    )
    operations = jobs.operations()
    operations.finish(_claim(operations), ended)
    assert _last(jobs, job).changes == {
        "status": {"from": "running", "to": "failed"},
        "attempt": {"from": 1},
        "signal": {"to": "SIGSEGV"},
        "duration_ms": {"to": 12},
        "stdout_bytes": {"to": 70_000},
        "stderr_bytes": {"to": 0},
        "peak_memory_bytes": {"to": 4096},
        "artifacts": {
            "to": {
                "stdout": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "out/a": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            }
        },
    }


def test_each_claim_and_end_states_the_attempt(jobs: Jobs) -> None:
    """The attempts of a job are counted up to the plan's limit; a run that is handed back keeps its attempt."""
    job = jobs.queued("true")
    operations = jobs.operations()
    operations.finish(_claim(operations), FAILURE)
    operations.release(_claim(operations), STOPPED)
    _claim(jobs.operations("lost", lease_s=0))
    assert operations.reclaim()
    operations.finish(_claim(operations), FAILURE)
    assert [record.changes["attempt"] for record in jobs.records(job.job_id)[3:]] == [
        {"to": 1},
        {"from": 1, "to": 2},
        {"to": 2},
        {"from": 2, "to": 2},
        {"to": 2},
        {"from": 2, "to": 3},
        {"to": 3},
        {"from": 3},
    ]


def test_a_cancelled_run_states_its_attempt(jobs: Jobs) -> None:
    """The run of a cancelled job ends behind the job; its record says which attempt it was, and that none follows."""
    job = jobs.queued("true")
    operations = jobs.operations()
    claimed = _claim(operations)
    jobs.client().cancel(job.job_id)
    operations.finish(claimed, STOPPED)
    assert _last(jobs, job).changes == {"attempt": {"from": 1}, "duration_ms": {"to": 5}}


def test_a_failure_goes_back_to_the_queue_while_attempts_are_left(jobs: Jobs) -> None:
    """Three attempts by default; each failure is an error on record, the last one ends the job."""
    job = jobs.queued("true")
    operations = jobs.operations()
    for _ in range(3):
        operations.finish(_claim(operations), FAILURE)
    assert operations.claim() is None
    assert jobs.stories(job.job_id)[3:] == [
        "job.status.transition success queued>running",
        "job.status.transition error running>queued",
        "job.status.transition success queued>running",
        "job.status.transition error running>queued",
        "job.status.transition success queued>running",
        "job.status.transition error running>failed",
    ]
    last = _last(jobs, job)
    assert last.attributes[names.ERROR_TYPE] == "exit"
    assert last.attributes[names.AUDITRACE_REASON] == "the command exited with 3"
    assert last.body["attributes"][names.AUDIT_OUTCOME] == "failure"
    assert [run.status for run in jobs.runs(job.job_id)] == [RunStatus.FAILED] * 3


def test_a_failure_that_will_not_pass_ends_the_job(jobs: Jobs) -> None:
    """A failure that is not worth another attempt fails the job at once, attempts left or not."""
    job = jobs.queued("true")
    operations = jobs.operations()
    assert operations.finish(_claim(operations), HOPELESS).status is Status.FAILED
    assert _last(jobs, job).story == "job.status.transition error running>failed"


def test_the_pause_grows_with_the_attempts(jobs: Jobs) -> None:
    """The pause after a failure is asked for by the number of the attempt that failed, and kept to."""
    asked: list[int] = []

    def delay_ns(attempt: int) -> int:
        asked.append(attempt)
        return attempt * 10_000_000_000

    operations = RunOperations(jobs.services, "worker-1", 60_000_000_000, delay_ns)
    job = jobs.queued("true")
    for attempt in (1, 2):
        operations.finish(_claim(operations), FAILURE)
        jobs.clock.advance(attempt * 10 - 2)
        assert operations.claim() is None
        jobs.clock.advance(3)
    operations.finish(_claim(operations), FAILURE)
    assert asked == [1, 2, 3]
    assert jobs.job(job.job_id).status is Status.FAILED


def test_below_the_mark_runs_end_and_none_begins(jobs: Jobs, tmp_path: Path) -> None:
    """While the disk is nearly full no job is claimed, and a run that was claimed before ends as usual."""
    free = tmp_path / "free"
    free.mkdir()
    watermark = DiskWatermark(free, 2**62, lambda: 0.0)
    intake = WatermarkedLedger(jobs.services.ledger, watermark)
    unbounded, bounded = (
        RunOperations(jobs.services, "worker-1", 60_000_000_000, lambda _: 0, given) for given in (None, intake)
    )
    first, second = jobs.queued("true"), jobs.queued("true")
    claimed = _claim(unbounded)
    with pytest.raises(DiskLowError):
        bounded.claim()
    bounded.finish(claimed, SUCCESS)
    assert {jobs.job(job.job_id).status for job in (first, second)} == {Status.SUCCEEDED, Status.QUEUED}


def test_a_retry_by_a_client_gives_all_attempts_again(jobs: Jobs) -> None:
    """After the last attempt failed, a client's retry allows three more; runs are numbered on."""
    job = jobs.queued("true")
    operations = jobs.operations()
    for _ in range(3):
        operations.finish(_claim(operations), FAILURE)
    jobs.client("berta").retry(job.job_id)
    retrying = _last(jobs, job)
    assert retrying.story == "job.retry success failed>queued"
    assert retrying.changes["run"] == {"from": 3, "to": 4}
    for _ in range(3):
        claimed = _claim(operations)
        assert _asked(_last(jobs, job))[:3] == ("berta", "user", retrying.record_id)
        operations.finish(claimed, FAILURE)
    assert [run.number for run in jobs.runs(job.job_id)] == [1, 2, 3, 4, 5, 6]
    assert jobs.job(job.job_id).status is Status.FAILED


def test_a_lease_is_kept_as_long_as_it_is_renewed(jobs: Jobs) -> None:
    """A run whose lease is renewed in time is never reclaimed; one whose lease ended is, by whoever comes."""
    job = jobs.queued("true")
    mine, other = jobs.operations(), jobs.operations("worker-2")
    claimed = _claim(mine)
    for _ in range(3):
        jobs.clock.advance(50)
        assert mine.renew([claimed]) == []
        assert not other.reclaim()
    jobs.clock.advance(61)
    assert other.reclaim()
    assert not other.reclaim()
    assert jobs.job(job.job_id).status is Status.QUEUED
    assert mine.renew([claimed]) == [claimed]


def test_a_reclaimed_run_is_closed_as_unknown(jobs: Jobs) -> None:
    """Nobody knows how the run of a lost worker ended, and the record says so; the job is queued again."""
    job = jobs.queued("true")
    claimed = _claim(jobs.operations("worker-1", lease_s=0))
    assert jobs.operations("worker-2").reclaim()
    record, run = _last(jobs, job), _last_run(jobs, job)
    assert record.story == "job.status.transition unknown running>queued"
    assert record.attributes[names.AUDIT_OUTCOME] == "unknown"
    assert "nobody knows what the run did" in record.attributes[names.AUDITRACE_REASON]
    assert record.attributes[names.ERROR_TYPE] == LEASE_EXPIRED
    assert record.attributes[names.AUDIT_ACTOR_ID] == "worker-2"
    assert _asked(record) == _asked(jobs.records(job.job_id)[-2])
    assert record.changes.keys() == {"status", "attempt", "duration_ms", "worker"}
    assert record.changes["worker"] == {"from": "worker-1"}
    assert (run.status, run.exit_code, run.error_type) == (RunStatus.UNKNOWN, None, LEASE_EXPIRED)
    assert jobs.job(job.job_id).attempts_left == claimed.job.attempts_left == 2


def test_a_job_whose_every_worker_is_lost_fails(jobs: Jobs) -> None:
    """A lost run costs an attempt, so that a command that kills its machine does not do it for ever."""
    job = jobs.queued("true")
    operations = jobs.operations("lost", lease_s=0)
    for _ in range(3):
        _claim(operations)
        assert jobs.operations().reclaim()
    assert _last(jobs, job).story == "job.status.transition unknown running>failed"
    assert jobs.job(job.job_id).status is Status.FAILED


@pytest.mark.stores(SQLITE)
def test_the_run_of_a_dead_process_is_reclaimed_at_once(jobs: Jobs) -> None:
    """On one machine nobody waits for the lease of a process that is gone."""
    job = jobs.queued("true")
    gone = jobs.store.lane()
    owner = jobs.store.locks(gone).owner
    claimed = _claim(jobs.operations(owner, lease_s=3600))
    assert not jobs.operations().reclaim()
    jobs.store.kill(gone)
    assert jobs.operations().reclaim()
    assert _last(jobs, job).story == "job.status.transition unknown running>queued"
    assert claimed.run.worker_id == owner


def test_a_worker_does_not_reclaim_its_own_runs(jobs: Jobs) -> None:
    """When clock or process jumped over the end of a lease, the runs in progress keep theirs."""
    job = jobs.queued("true")
    operations = jobs.operations()
    claimed = _claim(operations)
    jobs.clock.advance(61)
    assert not operations.reclaim([claimed])
    assert not jobs.operations("worker-2").reclaim()
    operations.finish(claimed, SUCCESS)
    assert jobs.job(job.job_id).status is Status.SUCCEEDED


def test_an_end_that_comes_too_late_is_refused_on_record(jobs: Jobs) -> None:
    """When another has closed the run, the outcome that its worker reports is rejected, and says so in a record."""
    job = jobs.queued("true")
    operations = jobs.operations(lease_s=0)
    claimed = _claim(operations)
    jobs.operations("worker-2").reclaim()
    again = _claim(jobs.operations("worker-2"))
    for report in (operations.finish, operations.release):
        with pytest.raises(TransitionRefusedError) as refused:
            report(claimed, SUCCESS)
        record = _last(jobs, job)
        assert record.story == "job.status.transition rejected"
        assert record.record_id == refused.value.receipt.record_id
    assert jobs.job(job.job_id) == again.job
    assert [run.status for run in jobs.runs(job.job_id)] == [RunStatus.UNKNOWN, RunStatus.RUNNING]


def test_an_end_that_was_recorded_already_is_a_noop(jobs: Jobs) -> None:
    """When the answer to a commit was lost, the worker reports again; nothing changes, and that is on record."""
    operations = jobs.operations()
    for ended, report in ((SUCCESS, operations.finish), (FAILURE, operations.finish), (STOPPED, operations.release)):
        job = jobs.queued("true")
        claimed = _claim(operations)
        after = report(claimed, ended)
        assert report(claimed, ended) == after == jobs.job(job.job_id)
        record = _last(jobs, job)
        assert (record.story, record.attributes[names.AUDITRACE_JOB_RUN]) == ("job.status.transition noop", 1)
        if not after.status.is_final:
            jobs.client().cancel(job.job_id)


def test_a_run_is_handed_back_with_its_attempt(jobs: Jobs) -> None:
    """A worker that stops costs no attempt: the run is released, the job is due at once."""
    job = jobs.queued("true")
    operations = jobs.operations(retry_delay_s=60)
    operations.release(_claim(operations), STOPPED)
    record = _last(jobs, job)
    assert record.story == "job.status.transition error running>queued"
    assert record.attributes[names.ERROR_TYPE] == WORKER_SHUTDOWN
    assert _last_run(jobs, job).status is RunStatus.RELEASED
    for attempts_left in (2, 1, 0):
        claimed = _claim(operations)
        assert claimed.job.attempts_left == attempts_left
        operations.finish(claimed, FAILURE)
        jobs.clock.advance(61)
    assert operations.claim() is None


@pytest.mark.parametrize("ended", [SUCCESS, FAILURE, STOPPED])
def test_the_run_of_a_cancelled_job_is_closed_without_a_version(jobs: Jobs, ended: Ended) -> None:
    """However the run of a cancelled job ends, the job stays cancelled, and the run's end is on record."""
    job = jobs.queued("true")
    operations = jobs.operations()
    claimed = _claim(operations)
    cancelled = jobs.client().cancel(job.job_id).value
    assert jobs.store.reads.cancelled_runs(operations.worker_id) == [job.job_id]
    assert operations.renew([claimed]) == [claimed]
    (operations.release if ended is STOPPED else operations.finish)(claimed, ended)
    record = _last(jobs, job)
    assert record.story == "job.status.transition error"
    assert names.AUDITRACE_TARGET_VERSION not in record.attributes
    assert record.attributes[names.AUDITRACE_JOB_RUN] == 1
    assert record.attributes[names.ERROR_TYPE] == CANCELLED
    assert record.changes["duration_ms"] == {"to": ended.duration_ms}
    assert jobs.job(job.job_id) == cancelled
    assert _last_run(jobs, job).status is RunStatus.CANCELLED
    assert jobs.store.reads.cancelled_runs(operations.worker_id) == []
    assert operations.claim() is None


def test_the_run_of_a_cancelled_job_whose_worker_is_lost(jobs: Jobs) -> None:
    """The dangling run of a cancelled job is closed as unknown; the job is not queued again."""
    job = jobs.queued("true")
    _claim(jobs.operations("lost", lease_s=0))
    cancelled = jobs.client().cancel(job.job_id).value
    assert jobs.operations().reclaim()
    assert _last(jobs, job).story == "job.status.transition unknown"
    assert names.AUDITRACE_TARGET_VERSION not in _last(jobs, job).attributes
    assert jobs.job(job.job_id) == cancelled
    assert _last_run(jobs, job).status is RunStatus.UNKNOWN
    assert not jobs.operations().reclaim()


def test_a_failure_inside_the_work_is_recorded_and_changes_nothing(jobs: Jobs) -> None:
    """When the code itself breaks while it records an end, the run stays as it was and the failure is on record."""

    def broken(_attempt: int) -> int:
        raise ZeroDivisionError

    job = jobs.queued("true")
    operations = RunOperations(jobs.services, "worker-1", 0, broken)
    claimed = _claim(operations)
    with pytest.raises(ZeroDivisionError):
        operations.finish(claimed, FAILURE)
    record = _last(jobs, job)
    assert (record.story, record.attributes[names.ERROR_TYPE]) == ("job.status.transition error", "ZeroDivisionError")
    assert jobs.job(job.job_id) == claimed.job
    assert _last_run(jobs, job) == claimed.run
    assert jobs.operations().reclaim()


def test_tenants_take_turns(jobs: Jobs) -> None:
    """A tenant with a long queue does not keep another from its turn, with one slot or with many."""
    flood = [jobs.queued("true", tenant="flood").job_id for _ in range(6)]
    calm = [jobs.queued("true", tenant="calm").job_id for _ in range(2)]
    operations = jobs.operations()
    one_slot: list[str] = []
    for _ in range(4):
        claimed = _claim(operations)
        one_slot.append(claimed.job.job_id)
        operations.finish(claimed, SUCCESS)
    assert one_slot == [flood[0], calm[0], flood[1], calm[1]]
    calm = [jobs.queued("true", tenant="calm").job_id for _ in range(2)]
    many_slots = [_claim(operations).job.job_id for _ in range(4)]
    assert sorted(many_slots) == sorted([*flood[2:4], *calm])


def test_what_is_due_is_known_without_a_claim(jobs: Jobs) -> None:
    """A worker can tell when the next job is due: never, in the past, or after its pause."""
    reads = jobs.store.reads
    assert reads.next_due_ns() is None
    jobs.queued("true")
    due_ns = reads.next_due_ns()
    assert due_ns is not None
    assert due_ns <= jobs.clock()
    operations = jobs.operations(retry_delay_s=30)
    operations.finish(_claim(operations), FAILURE)
    due_ns = reads.next_due_ns()
    assert due_ns is not None
    assert due_ns > jobs.clock() + 20_000_000_000
    poll_until(lambda: reads.cancelled_runs(operations.worker_id) == [], "no cancelled run")


def test_the_ledger_verifies_after_all_this(jobs: Jobs) -> None:
    """Success, failure, retry, release, cancel, reclaim and refusal leave chains that hold."""
    operations = jobs.operations()
    for ended in (SUCCESS, HOPELESS):
        jobs.queued("true")
        operations.finish(_claim(operations), ended)
    jobs.queued("true")
    operations.release(_claim(operations), STOPPED)
    lost = _claim(jobs.operations("lost", lease_s=0))
    assert operations.reclaim()
    with pytest.raises(TransitionRefusedError):
        operations.finish(lost, SUCCESS)
    claimed = _claim(operations)
    jobs.client().cancel(claimed.job.job_id)
    operations.finish(claimed, FAILURE)
    report = jobs.store.verify()
    assert report.findings == ()
    assert report.records == len(jobs.records())
