"""A run executes what the records of its job state, also when somebody has changed the rows of the database."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import pytest

from service.errors import ConflictError
from service.execution.recorded import JOB_DIFFERS, difference
from service.jobs import transitions
from service.jobs.model import Job, Plan, RunRequest, Status
from service.jobs.plan import plan_sha256
from service.ports import StatedVersion
from service.store.rows import encode
from telemetry import names
from telemetry.audit.canonical import canonical_bytes, sha256_hex
from telemetry.audit.record import Actor
from tests.support.both_stores import BOTH
from tests.support.jobs import Jobs
from tests.support.poll_until import poll_until
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)

Attack = Callable[[Jobs, Job], None]


def drafted(jobs: Jobs) -> Job:
    """Return a job of a template that asks for a confirmation, with its draft."""
    client = jobs.client("anna")
    return client.draft(client.create("guarded", {}).value.job_id).value


def confirmed(jobs: Jobs) -> Job:
    """Return such a job, confirmed and not queued."""
    return jobs.client("berta").confirm(drafted(jobs).job_id, run=False).value


def queued(jobs: Jobs) -> Job:
    """Return such a job, confirmed and queued."""
    return jobs.client("berta").confirm(drafted(jobs).job_id).value


def other_plan(job: Job, **changes: object) -> Plan:
    """Return another plan than the job's, with its own hash."""
    assert job.plan is not None
    plan = msgspec.structs.replace(job.plan, argv=("touch", "/tmp/not-confirmed"), **changes)
    return msgspec.structs.replace(plan, sha256=plan_sha256(plan))


def under_the_old_hash(job: Job) -> Plan:
    """Return another plan with the hash of the job's."""
    assert job.plan is not None
    return msgspec.structs.replace(other_plan(job), sha256=job.plan.sha256)


def asked_by_carla(job: Job) -> RunRequest:
    """Return the request of the job's run with another initiator."""
    assert job.request is not None
    return msgspec.structs.replace(job.request, initiator=Actor("carla", "user", "key"))


def rewrite(jobs: Jobs, job: Job, **changes: Any) -> None:
    """Change the row of a job, and everything in the row of its version that its row shows."""
    after = msgspec.structs.replace(job, **changes)
    document = encode(after)
    with jobs.store.attacking() as attacker:
        attacker.execute(
            "UPDATE job_versions SET status = ?, document_sha256 = ? WHERE job_id = ? AND version = ?",
            [after.status.value, sha256_hex(document.encode()), job.job_id, job.version],
        )
        attacker.execute(
            "UPDATE jobs SET status = ?, document = ?, not_before_ns = 0 WHERE job_id = ?",
            [after.status.value, document, job.job_id],
        )


def _with_a_request(jobs: Jobs, job: Job, **changes: Any) -> None:
    """Queue a job by its row alone, with the request of another job."""
    request = queued(jobs).request
    rewrite(jobs, job, status=Status.QUEUED, attempts_left=1, request=request, **changes)


def _with_forged_records(jobs: Jobs, job: Job) -> None:
    """Queue a draft with copies of another job's records, behind the end of the stream and linked to it."""
    model = queued(jobs)
    with jobs.store.attacking() as attacker:
        bodies = [
            (version, record_id, json.loads(body))
            for version, record_id, body in attacker.execute(
                "SELECT version, audit_records.record_id, body FROM job_versions JOIN audit_records"
                " ON audit_records.record_id = job_versions.record_id WHERE job_versions.job_id = ? AND version > 2",
                [model.job_id],
            ).fetchall()
        ]
        ((number, prev_hash),) = attacker.execute("SELECT number, hash FROM audit_streams WHERE closed = 0").fetchall()
        for version, model_id, body in bodies:
            number += 1
            record_id = f"f{model_id[1:]}"
            body["attributes"] |= {
                names.AUDIT_RECORD_ID: record_id,
                names.AUDIT_SEQUENCE_NUMBER: number,
                names.AUDIT_SEQUENCE_PREV_HASH: prev_hash,
                names.AUDIT_TARGET_ID: job.job_id,
                names.AUDITRACE_JOB_ID: job.job_id,
            }
            text = canonical_bytes(body).decode()
            prev_hash = sha256_hex(text.encode())
            columns = (
                "event_name, timestamp_ns, tenant_id, actor_id, action, outcome, result, target_type, request_id,"
                " target_version, trace_id, span_id, otlp, envelope_id"
            )
            attacker.execute(
                "INSERT INTO audit_records (record_id, stream_id, number, hash, body, target_id, job_id, versioned_job,"
                f" observed_ns, {columns}) SELECT ?, stream_id, ?, ?, ?, ?, ?, ?, observed_ns + ?, {columns}"
                " FROM audit_records WHERE record_id = ?",
                [record_id, number, prev_hash, text, *[job.job_id] * 3, 10**9 + number, model_id],
            )
            status = "confirmed" if version == 3 else "queued"
            attacker.execute(
                "INSERT INTO job_versions (job_id, version, status, record_id, document_sha256)"
                " VALUES (?, ?, ?, ?, '')",
                [job.job_id, version, status, record_id],
            )
    known = {name: getattr(model, name) for name in ("status", "version", "confirmed_by", "confirmation", "request")}
    after = msgspec.structs.replace(job, **known, attempts_left=1)
    with jobs.store.attacking() as attacker:
        attacker.execute(
            "UPDATE jobs SET status = 'queued', version = ?, document = ?, not_before_ns = 0 WHERE job_id = ?",
            [after.version, encode(after), job.job_id],
        )


ATTACKS: Final[dict[str, tuple[Callable[[Jobs], Job], Attack, str]]] = {
    "another plan with its hash": (
        queued,
        lambda jobs, job: rewrite(jobs, job, plan=other_plan(job)),
        "states another job, version, template or plan",
    ),
    "another plan under the old hash": (
        queued,
        lambda jobs, job: rewrite(jobs, job, plan=under_the_old_hash(job)),
        "its plan is not the one with its hash",
    ),
    "a draft that is queued by its row": (drafted, _with_a_request, "does not state that it is queued"),
    "a draft that is queued and confirmed by its row": (
        drafted,
        lambda jobs, job: _with_a_request(jobs, job, confirmed_by="berta"),
        "does not state that it is queued",
    ),
    "a confirmation by somebody else": (
        queued,
        lambda jobs, job: rewrite(jobs, job, confirmed_by="carla", confirmation=None),
        "no record states that carla confirmed its plan",
    ),
    "no confirmation": (
        queued,
        lambda jobs, job: rewrite(jobs, job, confirmed_by=None, confirmation=None),
        "no record states that anybody confirmed its plan",
    ),
    "another tenant": (
        queued,
        lambda jobs, job: rewrite(jobs, job, tenant_id="other"),
        "states another job, version, template or plan",
    ),
    "another initiator": (
        queued,
        lambda jobs, job: rewrite(jobs, job, request=asked_by_carla(job)),
        "its run was requested by berta",
    ),
    "records behind the end of a stream": (drafted, _with_forged_records, "is not in the chain of its stream"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_row_that_is_not_what_the_records_state_is_not_run(jobs: Jobs, attack: str) -> None:
    """The run is refused, its record says why, the job has failed for good, and the process reports an alarm."""
    prepare, change, reason = ATTACKS[attack]
    job = prepare(jobs)
    change(jobs, job)
    worker = jobs.worker(slots=1)
    jobs.until(job.job_id, Status.FAILED)
    (ended,) = [record for record in jobs.records(job.job_id) if names.ERROR_TYPE in record.attributes]
    assert (ended.result, ended.attributes[names.ERROR_TYPE]) == ("error", JOB_DIFFERS)
    assert reason in ended.attributes[names.AUDITRACE_REASON]
    assert jobs.artifacts(job.job_id) == {}
    assert len(jobs.runs(job.job_id)) == 1
    # The worker counts and tells after the commit.
    poll_until(lambda: ("guarded", JOB_DIFFERS) in jobs.durations.runs, "the run to be counted")
    told = f"1 run was refused, first run 1 of job {job.job_id}: its job is not what its records state"
    poll_until(lambda: worker.problem == told, "the alarm")


LAUNDERED: Final[dict[str, tuple[Attack, Callable[[Jobs, Job], object]]]] = {
    "by a request to run it": (
        lambda jobs, job: rewrite(jobs, job, plan=other_plan(job)),
        lambda jobs, job: jobs.client("anna").run(job.job_id),
    ),
    "by a retry": (
        lambda jobs, job: rewrite(jobs, job, plan=other_plan(job), status=Status.FAILED),
        lambda jobs, job: jobs.client("anna").retry(job.job_id),
    ),
    "by a request to run it, as if it was confirmed": (
        lambda jobs, job: rewrite(jobs, job, confirmed_by=None, confirmation=None, plan=other_plan(job)),
        lambda jobs, job: jobs.client("anna").run(job.job_id),
    ),
}


@pytest.mark.parametrize("way", LAUNDERED)
def test_a_changed_row_is_not_run_after_the_service_has_written_it_again(jobs: Jobs, way: str) -> None:
    """A genuine record of a later version does not make the plan the one that was drafted and confirmed."""
    change, ask = LAUNDERED[way]
    job = confirmed(jobs)
    change(jobs, job)
    ask(jobs, job)
    jobs.worker(slots=1)
    jobs.until(job.job_id, Status.FAILED)
    assert [run.error_type for run in jobs.runs(job.job_id)] == [JOB_DIFFERS]


def test_a_draft_is_not_run_as_a_run_whose_worker_died(jobs: Jobs) -> None:
    """The reclaim of a run that never was writes genuine records; that somebody asked for the first run has none."""
    model, job = queued(jobs), drafted(jobs)
    rewrite(jobs, job, status=Status.RUNNING, run=1, attempts_left=1, request=model.request)
    claimed = jobs.operations("dead").claim()
    assert claimed is not None
    run = msgspec.structs.replace(claimed.run, job_id=job.job_id)
    with jobs.store.attacking() as attacker:
        attacker.execute(
            "INSERT INTO job_runs (job_id, number, status, worker_id, document, lease_until_ns)"
            " VALUES (?, 1, ?, ?, ?, 1)",
            [job.job_id, "running", "dead", encode(run)],
        )
    jobs.worker(slots=1)
    jobs.until(job.job_id, Status.FAILED)
    reason = jobs.records(job.job_id)[-1].attributes[names.AUDITRACE_REASON]
    assert "is not run" in reason


def test_what_a_worker_and_clients_do_is_never_taken_for_an_attack(jobs: Jobs) -> None:
    """Attempts that fail, a retry, another template, a confirmation with and without the run: all of it runs."""
    worker = jobs.worker(slots=1)
    waiting = confirmed(jobs)
    failing = jobs.queued("test $AUDITRACE_RUN = 5")
    jobs.until(failing.job_id, Status.FAILED)
    jobs.client("berta").retry(failing.job_id)
    jobs.until(failing.job_id, Status.SUCCEEDED)
    jobs.until(queued(jobs).job_id, Status.SUCCEEDED)
    jobs.client("anna").run(waiting.job_id)
    jobs.until(waiting.job_id, Status.SUCCEEDED)
    last = jobs.queued("true")
    jobs.templates("")
    jobs.until(last.job_id, Status.SUCCEEDED)
    assert worker.problem is None


def test_a_run_that_was_reclaimed_and_one_that_was_handed_back_are_run(jobs: Jobs) -> None:
    """Their versions come from a worker, with the initiator of the request."""
    lost = queued(jobs)
    assert jobs.operations("dead").claim() is not None
    jobs.crash()
    jobs.outlive_leases()
    jobs.worker(slots=1)
    jobs.until(lost.job_id, Status.SUCCEEDED)
    assert len(jobs.runs(lost.job_id)) == 2


def _claimed(jobs: Jobs, job: Job) -> tuple[Job, Sequence[StatedVersion]]:
    return transitions.claim(job, 1), jobs.store.reads.stated_versions(job.job_id, job.version)


def test_a_job_of_an_older_version_is_what_its_records_state(jobs: Jobs) -> None:
    """Version 0.1.0 stored who confirmed, and no more about it."""
    job, stated = _claimed(jobs, queued(jobs))
    older = msgspec.structs.replace(job, confirmation=None, created_by_issuer=None)
    assert [version.status for version in stated] == ["draft_ready", "confirmed", "queued"]
    assert difference(older, stated, SECRET) is None
    assert difference(job, stated, SECRET) is None


def test_records_of_a_month_that_was_removed_are_no_attack(jobs: Jobs) -> None:
    """Nothing can be said about such a job: it is not run, and that is no alarm."""
    job, stated = _claimed(jobs, queued(jobs))
    gone = msgspec.structs.replace(stated[0], record_id=None, number=None, record_hash=None, body=None)
    with pytest.raises(ConflictError, match="not in the database any more"):
        difference(job, [gone, *stated[1:]], SECRET)


FIELDS: Final[dict[str, Callable[[StatedVersion], dict[str, object]]]] = {
    "not the one that was sealed": lambda one: {"body": (one.body or "").replace("anna", "carl")},
    "is not the one that was sealed": lambda one: {"number": 1},
    "was not stored by a lane": lambda one: {"tip_hash": "0" * 64},
    "by a lane of this deployment": lambda one: {"tip_mac": "0" * 64},
    "is not in the chain": lambda one: {
        "tip_number": 1,
        "tip_mac": SECRET.tip_mac(str(one.stream_id), 1, str(one.tip_hash)),
    },
    "the record behind": lambda one: {"next_body": None},
    "the chain of its stream": lambda one: {"next_body": one.body},
    "does not state that it is": lambda one: {"status": "confirmed"},
    "states another": lambda one: {"version": 9},
}


@pytest.mark.parametrize("said", FIELDS)
def test_a_record_counts_only_in_the_chain_of_its_stream(jobs: Jobs, said: str) -> None:
    """Its body has its hash, the next record names that, and the tip of the stream has the MAC of the deployment."""
    job, stated = _claimed(jobs, queued(jobs))
    first = msgspec.structs.replace(stated[0], **FIELDS[said](stated[0]))
    assert said in (difference(job, [first, *stated[1:]], SECRET) or "")


def test_a_missing_version_is_a_difference(jobs: Jobs) -> None:
    """Without the draft, the confirmation or the place in the queue, nobody has said that this plan may run."""
    job, stated = _claimed(jobs, queued(jobs))
    for left_out, said in enumerate(
        ("the draft of its plan", "berta confirmed its plan", "it was queued at version 4")
    ):
        left = [version for place, version in enumerate(stated) if place != left_out]
        assert said in (difference(job, left, SECRET) or "")
