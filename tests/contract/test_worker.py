"""What a worker does with queued jobs: proven on a real ledger with real processes."""

import hashlib
import json
from pathlib import Path

import pytest

from service.execution.execution import Execution
from service.execution.preparation import RunSurroundings
from service.jobs.model import RunStatus, Status
from service.operations.runs import CANCELLED, WORKER_SHUTDOWN, RunOperations
from telemetry import names
from tests.support.both_stores import BOTH
from tests.support.jobs import TEMPLATES, Jobs
from tests.support.poll_until import poll_until
from tests.support.runs import alive
from tests.support.stores import SECRET

TOKEN = "hunter2 -- $(echo gotcha)"

pytestmark = pytest.mark.stores(*BOTH)


def test_a_queued_job_runs(jobs: Jobs, tmp_path: Path) -> None:
    """The command runs with its input, its fixed variables and those let through; output and record are kept."""
    jobs.worker(environment={"PASSED": "through", "HELD": "back"})
    client = jobs.client()
    script = 'cat in/a; echo "$0 $FIXED $PASSED $HELD"; echo b > out/b; echo c >&2'
    job = client.create("shell", {"script": script, "marker": "m"}).value
    client.write_input(job.job_id, "a", b"a\n")
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.artifacts(job.job_id) == {"stdout": b"a\nm yes through \n", "stderr": b"c\n", "out/b": b"b\n"}
    (run,) = jobs.runs(job.job_id)
    assert (run.status, run.exit_code, run.error_type) == (RunStatus.SUCCEEDED, 0, None)
    assert run.duration_ms is not None
    last = jobs.records(job.job_id)[-1]
    assert last.story == "job.status.transition success running>succeeded"
    assert last.changes["exit_code"] == {"to": 0}
    assert last.changes["duration_ms"] == {"to": run.duration_ms}
    assert (last.changes["stdout_bytes"], last.changes["stderr_bytes"]) == ({"to": 17}, {"to": 2})
    assert last.changes["artifacts"]["to"] == {
        content.name: content.sha256 for content in jobs.store.reads.artifacts(job.job_id, 1)
    }
    poll_until(lambda: jobs.durations.runs == [("shell", None)], "the run to be measured")
    assert list(jobs.runs_folder.iterdir()) == []


def test_the_signal_that_ended_a_command_is_recorded(jobs: Jobs) -> None:
    """A command that was killed has no exit code: its record names the signal."""
    jobs.worker()
    job = jobs.queued("kill -SEGV $$")
    jobs.until(job.job_id, Status.FAILED)
    last = jobs.records(job.job_id)[-1]
    assert last.changes["signal"] == {"to": "SIGSEGV"}
    assert "exit_code" not in last.changes


def test_attempts_go_on_until_one_succeeds(jobs: Jobs, tmp_path: Path) -> None:
    """A command that fails twice runs three times, each attempt with a run, artifacts and records of its own."""
    jobs.worker()
    count = tmp_path / "count"
    job = jobs.queued(f"echo x >> {count}; echo $AUDITRACE_RUN; test $(wc -l < {count}) = 3")
    jobs.until(job.job_id, Status.SUCCEEDED)
    runs = jobs.runs(job.job_id)
    assert [(run.number, run.status, run.exit_code) for run in runs] == [
        (1, RunStatus.FAILED, 1),
        (2, RunStatus.FAILED, 1),
        (3, RunStatus.SUCCEEDED, 0),
    ]
    assert [jobs.artifacts(job.job_id, number)["stdout"] for number in (1, 2, 3)] == [b"1\n", b"2\n", b"3\n"]
    assert jobs.stories(job.job_id)[3:] == [
        "job.status.transition success queued>running",
        "job.status.transition error running>queued",
        "job.status.transition success queued>running",
        "job.status.transition error running>queued",
        "job.status.transition success queued>running",
        "job.status.transition success running>succeeded",
    ]


@pytest.mark.parametrize(
    ("template", "script", "runs", "error_type"),
    [
        ("shell", "exit 3", 3, "exit"),
        ("picky", "exit 75", 3, "exit"),
        ("picky", "exit 3", 1, "exit"),
        ("picky", "kill -9 $$", 1, "signal"),
        ("short", "sleep 60", 1, "timeout"),
        ("shell", "yes", 3, "output_limit"),
        ("absent", "", 3, "start_failed"),
    ],
)
def test_a_failure_has_its_attempts_and_its_name(
    jobs: Jobs, template: str, script: str, runs: int, error_type: str
) -> None:
    """Without a list of exit codes every failure is tried again; with one, only those, and what never ran at all."""
    jobs.worker()
    job = jobs.queued(script, template)
    jobs.until(job.job_id, Status.FAILED)
    assert [run.error_type for run in jobs.runs(job.job_id)] == [error_type] * runs
    last = jobs.records(job.job_id)[-1]
    assert (last.result, last.attributes[names.ERROR_TYPE]) == ("error", error_type)
    assert last.attributes[names.AUDITRACE_REASON]


def test_a_pause_between_attempts_is_kept(jobs: Jobs) -> None:
    """The worker waits for the pause after a failure, and no longer than until it is over."""
    jobs.worker(operations=jobs.operations(retry_delay_s=0.3))
    job = jobs.queued("exit 1")
    jobs.until(job.job_id, Status.FAILED)
    first, second, third = jobs.runs(job.job_id)
    assert first.ended_ns is not None
    assert second.ended_ns is not None
    assert second.started_ns - first.ended_ns >= 300_000_000
    assert third.started_ns - second.ended_ns >= 300_000_000


def test_a_sensitive_parameter_is_known_to_the_command_alone(jobs: Jobs, tmp_path: Path) -> None:
    """The command gets the value; plan, records, listings, spans and database show its masked form only."""
    jobs.worker()
    client = jobs.client()
    job = client.create("sign-in", {"token": TOKEN}).value
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.until(job.job_id, Status.SUCCEEDED)
    masked = SECRET.mask(TOKEN)
    assert jobs.job(job.job_id).parameters == {"token": masked}
    assert jobs.artifacts(job.job_id) == {"stdout": TOKEN.encode(), "stderr": b"", f"out/{masked}": b"x\n"}
    shown = [json.dumps(record.body) for record in jobs.records()]
    shown += [
        document for (document,) in jobs.store.rows("SELECT document FROM jobs UNION SELECT document FROM job_runs")
    ]
    shown += [str(span.to_json()) for span in jobs.spans.get_finished_spans()]
    assert any(masked in text for text in shown)
    assert [text for text in shown if "hunter2" in text] == []
    assert [row for row in jobs.store.rows("SELECT * FROM job_secrets") if "hunter2" in str(row)] == []


def test_a_failed_run_shows_the_end_of_its_standard_error_without_secrets(jobs: Jobs) -> None:
    """The run keeps why it failed; the sensitive value is masked there, and the artifact holds what was written."""
    jobs.worker()
    client = jobs.client()
    job = client.create("sign-in-refused", {"token": TOKEN}).value
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.until(job.job_id, Status.FAILED)
    (run,) = jobs.runs(job.job_id)
    assert run.stderr_end == "no \ufffd[1m***\n***"
    assert TOKEN not in str(jobs.store.rows("SELECT document FROM job_runs"))
    assert jobs.artifacts(job.job_id)["stderr"] == f"no \033[1m{TOKEN}\n{TOKEN}".encode()


def test_a_run_that_succeeded_keeps_no_end_of_its_standard_error(jobs: Jobs) -> None:
    """There is nothing to explain; the artifact has all of it."""
    jobs.worker()
    job = jobs.queued("echo hello >&2")
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.runs(job.job_id)[0].stderr_end is None
    assert jobs.artifacts(job.job_id)["stderr"] == b"hello\n"


def test_what_a_command_says_of_a_secret_is_masked_on_record(jobs: Jobs) -> None:
    """A file that is named after the secret and left out does not get the secret into the record's reason."""
    jobs.templates(TEMPLATES.replace('echo x > "out/$0"', 'mkdir "out/$0"; exit 1'))
    jobs.worker()
    client = jobs.client()
    job = client.create("sign-in", {"token": TOKEN}).value
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.until(job.job_id, Status.FAILED)
    reason = jobs.records(job.job_id)[-1].attributes[names.AUDITRACE_REASON]
    assert f"out/{SECRET.mask(TOKEN)} is not a regular file" in reason
    assert "hunter2" not in reason


@pytest.mark.parametrize(
    ("tampering", "reason"),
    [
        ("UPDATE job_inputs SET payload = x'00'", "the input a is not the one that the plan names"),
        ("DELETE FROM job_inputs", "the input a is not the one that the plan names"),
        ("UPDATE job_secrets SET ciphertext = x'0000000000000000000000000000000000'", "cannot be decrypted"),
        ("DELETE FROM job_secrets", "the value of a sensitive parameter is not stored"),
    ],
)
def test_what_is_not_as_confirmed_does_not_run(jobs: Jobs, tampering: str, reason: str) -> None:
    """When input or secret are not those of the plan, nothing is started, the job fails, and the record says why."""
    client = jobs.client()
    job = client.create("sign-in", {"token": TOKEN}).value
    client.write_input(job.job_id, "a", b"a")
    client.draft(job.job_id)
    client.run(job.job_id)
    jobs.store.execute(tampering)
    jobs.worker()
    jobs.until(job.job_id, Status.FAILED)
    last = jobs.records(job.job_id)[-1]
    assert last.attributes[names.ERROR_TYPE] == "start_failed"
    assert reason in last.attributes[names.AUDITRACE_REASON]
    assert jobs.artifacts(job.job_id) == {}
    assert len(jobs.runs(job.job_id)) == 1


def test_what_runs_is_what_was_confirmed(jobs: Jobs) -> None:
    """A template that changed, or is gone, between trigger and run changes nothing of the command."""
    job = jobs.queued("echo as confirmed")
    jobs.templates("")
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.artifacts(job.job_id)["stdout"] == b"as confirmed\n"


def test_a_cancelled_run_is_killed_with_its_group(jobs: Jobs, tmp_path: Path) -> None:
    """Cancelling a running job ends all its processes; its output is kept, its run closed, its slot free."""
    jobs.worker(slots=1)
    marker = f"marker-{tmp_path.name}-cancel"
    job = jobs.queued(f"echo begun; sh -c 'sleep 300; true' {marker} & sleep 300; true", marker=marker)
    poll_until(lambda: len(alive(marker)) >= 2, "the command and its child")
    cancelled = jobs.client("berta").cancel(job.job_id).value
    run = jobs.until_closed(job.job_id)
    assert alive(marker) == []
    assert (run.status, run.error_type) == (RunStatus.CANCELLED, CANCELLED)
    assert jobs.job(job.job_id) == cancelled
    assert jobs.artifacts(job.job_id)["stdout"] == b"begun\n"
    assert jobs.stories(job.job_id)[-2:] == ["job.cancel success running>cancelled", "job.status.transition error"]
    jobs.until(jobs.queued("true").job_id, Status.SUCCEEDED)


def test_a_cancellation_by_another_process_is_noticed(jobs: Jobs, tmp_path: Path) -> None:
    """What another process commits on the same ledger wakes nobody here, and is noticed all the same."""
    jobs.worker()
    other = jobs.beside(1)
    try:
        job = other.queued("sleep 300")
        jobs.until(job.job_id, Status.RUNNING)
        other.client().cancel(job.job_id)
        assert jobs.until_closed(job.job_id).status is RunStatus.CANCELLED
    finally:
        other.close()


def test_a_run_that_is_stopped_before_it_starts_never_starts(jobs: Jobs, tmp_path: Path) -> None:
    """A cancellation that comes between claim and start is kept until the command would start."""
    proof = tmp_path / "started"
    jobs.queued(f"touch {proof}")
    claimed = jobs.operations().claim()
    assert claimed is not None
    execution = Execution(claimed, 2**62)
    execution.stop(CANCELLED)
    execution.stop(WORKER_SHUTDOWN)
    around = RunSurroundings(environment={}, work_folder=tmp_path, max_artifact_bytes=1, owner_descriptor=None)
    ended = execution.carry_out(jobs.store.reads, SECRET, around)
    assert (ended.error_type, ended.exit_code, ended.artifacts) == (CANCELLED, None, ())
    assert not proof.exists()


def test_a_run_that_gets_no_folder_has_failed_to_start(jobs: Jobs, tmp_path: Path) -> None:
    """Where no folder can be made the run ends with the reason; nothing is raised, and another attempt may follow."""
    jobs.queued("true")
    claimed = jobs.operations().claim()
    assert claimed is not None
    (tmp_path / "file").write_text("")
    around = RunSurroundings(environment={}, work_folder=tmp_path / "file", max_artifact_bytes=1, owner_descriptor=None)
    ended = Execution(claimed, 2**62).carry_out(jobs.store.reads, SECRET, around)
    assert (ended.error_type, ended.is_retryable, ended.exit_code) == ("start_failed", True, None)
    assert (ended.reason or "").startswith("the run could not be prepared: ")


def test_slots_bound_what_runs_at_a_time(jobs: Jobs, tmp_path: Path) -> None:
    """Two slots run two jobs side by side, never three, and the others follow."""
    jobs.worker(slots=2)
    busy = tmp_path / "busy"
    busy.mkdir()
    # The first two wait for each other, so that a slow machine does not make them run one after the other.
    script = (
        f"mkdir {busy}/$AUDITRACE_JOB_ID; until test -e {tmp_path}/met; do"
        f" test $(ls {busy} | wc -l) -lt 2 || touch {tmp_path}/met; sleep 0.05; done;"
        f" ls {busy} | wc -l; rmdir {busy}/$AUDITRACE_JOB_ID"
    )
    queued = [jobs.queued(script) for _ in range(5)]
    seen: set[bytes] = set()
    for job in queued:
        jobs.until(job.job_id, Status.SUCCEEDED)
        seen.add(jobs.artifacts(job.job_id)["stdout"].strip())
    assert seen <= {b"1", b"2"}


def test_large_artifacts_are_cut_and_noted(jobs: Jobs) -> None:
    """An artifact beyond the limit is kept as far as it goes, and both notes and record say what was cut."""
    jobs.worker(max_artifact_bytes=1000)
    job = jobs.queued("head -c 5000 /dev/zero > out/big")
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.artifacts(job.job_id)["out/big"] == bytes(1000)
    (content,) = [one for one in jobs.store.reads.artifacts(job.job_id, 1) if one.name == "out/big"]
    assert (content.size, content.sha256) == (1000, hashlib.sha256(bytes(1000)).hexdigest())
    reason = jobs.records(job.job_id)[-1].attributes[names.AUDITRACE_REASON]
    assert reason == "out/big was cut from 5000 to 1000 bytes"


def test_a_worker_outlives_a_break_in_its_own_code(jobs: Jobs) -> None:
    """When recording an end breaks, the failure is on record, the slot is free and the run is reclaimed in time."""
    breaks = iter([True])

    def delay_ns(_attempt: int) -> int:
        if next(breaks, False):
            raise ZeroDivisionError
        return 0

    owner = jobs.store.locks(jobs.lane).owner
    jobs.worker(slots=1, operations=RunOperations(jobs.services, owner, 1_000_000_000, delay_ns))
    job = jobs.queued("test $AUDITRACE_RUN = 2")
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.stories(job.job_id)[3:] == [
        "job.status.transition success queued>running",
        "job.status.transition error",
        "job.status.transition unknown running>queued",
        "job.status.transition success queued>running",
        "job.status.transition success running>succeeded",
    ]
