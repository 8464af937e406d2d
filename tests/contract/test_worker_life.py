"""How a worker ends, and what becomes of its runs: stopped, killed, frozen, or without a ledger."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from service.jobs.model import RunStatus, Status
from service.ports import Ledger, Work
from service.worker import worker as worker_module
from telemetry import names
from tests.support.both_stores import BOTH, POSTGRES, SQLITE, Store
from tests.support.jobs import Jobs
from tests.support.outages import OUTAGES
from tests.support.poll_until import poll_until
from tests.support.processes import Process, pause, start_process
from tests.support.runs import alive

pytestmark = pytest.mark.stores(*BOTH)

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

# The first run writes its process id and stays; a later one says whether the first is still there.
STAYS = (
    'if [ "$AUDITRACE_RUN" = 1 ]; then echo $$ > {pid}; exec sleep 300; fi;'
    " kill -0 $(cat {pid}) 2>/dev/null && echo beside; true"
)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Worker processes, killed at the end if they still live."""
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def _start(processes: list[Process], jobs: Jobs, *, lease_s: float = 60, renew_s: float = 10) -> Process:
    """Start a worker in a process of its own."""
    arguments = [str(jobs.folder), jobs.store.database, str(len(processes) + 1), str(lease_s), str(renew_s)]
    process = start_process(
        [sys.executable, "-m", "tests.contract.job_worker", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _pid(path: Path) -> int:
    """Wait until the first run has written its process id, and return it."""
    poll_until(lambda: path.exists() and path.read_text().endswith("\n"), "the first run")
    return int(path.read_text())


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Stopped in good order.


def test_a_stop_lets_runs_end(jobs: Jobs, tmp_path: Path) -> None:
    """A run that ends within the grace is recorded as it ended; what is queued stays queued, slots free or not."""
    worker = jobs.worker()
    go = tmp_path / "go"
    os.mkfifo(go)
    running = jobs.queued(f"read x < {go}; echo done")
    jobs.until(running.job_id, Status.RUNNING)
    worker.retire()
    waiting = jobs.queued("true")
    for _ in range(2):
        worker.wake()
        poll_until(lambda: not worker._loop._woken.is_set(), "the worker to look around")
    go.write_text("x\n")
    worker.stop(60)
    assert jobs.job(running.job_id).status is Status.SUCCEEDED
    assert jobs.artifacts(running.job_id)["stdout"] == b"done\n"
    assert jobs.job(waiting.job_id).status is Status.QUEUED
    assert jobs.stories(waiting.job_id)[-1] == "job.run.trigger success draft_ready>queued"


def test_a_stop_hands_back_what_takes_longer(jobs: Jobs, tmp_path: Path) -> None:
    """At the end of the grace a run is stopped and released with its attempt, and another worker carries it out."""
    worker = jobs.worker()
    pid = tmp_path / "pid"
    job = jobs.queued(f"echo {'x' * 10}; " + STAYS.format(pid=pid))
    command = _pid(pid)
    worker.stop(0)
    assert not _is_alive(command)
    (run,) = jobs.runs(job.job_id)
    assert (run.status, run.error_type) == (RunStatus.RELEASED, "worker_shutdown")
    assert jobs.stories(job.job_id)[-1] == "job.status.transition error running>queued"
    assert jobs.job(job.job_id).attempts_left == 3
    assert jobs.artifacts(job.job_id)["stdout"] == b"xxxxxxxxxx\n"
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert [one.number for one in jobs.runs(job.job_id)] == [1, 2]


def test_a_worker_that_never_started_can_be_stopped(jobs: Jobs) -> None:
    """A process that stops before its worker began has nothing to wait for; stopping twice does no harm."""
    worker = jobs.worker()
    worker.stop(0)
    worker.stop(0)
    type(worker)(
        jobs.operations(), jobs.store.reads, worker._secret, worker._settings, jobs.durations, jobs.clock
    ).stop(0)


# Awake and asleep.


def test_commits_wake_the_worker(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this process commits is noticed by itself, not by looking from time to time."""
    monkeypatch.setattr(worker_module, "_POLL_S", 60.0)
    worker = jobs.worker()
    pid = tmp_path / "pid"
    job = jobs.queued(STAYS.format(pid=pid))
    _pid(pid)
    jobs.client().cancel(job.job_id)
    assert jobs.until_closed(job.job_id).status is RunStatus.CANCELLED
    worker.stop(0)


class CountingLedger:
    """A lane that notes which work is handed to it."""

    def __init__(self, lane: Ledger) -> None:
        self._lane = lane
        self.works: list[str] = []

    def submit(self, work: Work[T]) -> Future[T]:
        """Note the work and hand it on."""
        self.works.append(work.__qualname__)
        return self._lane.submit(work)


def test_an_idle_worker_leaves_the_ledger_alone(running_store: Store, tmp_path: Path) -> None:
    """While nothing is due, a worker writes nothing, however often it is woken; it only looks for lost runs."""
    ledgers: list[CountingLedger] = []

    def around(lane: Ledger) -> Ledger:
        ledgers.append(CountingLedger(lane))
        return ledgers[-1]

    jobs = Jobs(tmp_path, around=around, store=running_store)
    try:
        worker = jobs.worker()
        works = ledgers[-1].works

        def is_second_look() -> bool:
            worker.wake()
            return len(works) >= 2

        poll_until(is_second_look, "the worker to look for lost runs twice")
        assert {work.split(".<locals>")[0] for work in works} == {"RunOperations.reclaim"}
        assert [record.event_name for record in jobs.records()] == [names.EVENT_AUDIT_STREAM_OPEN]
    finally:
        jobs.close()


@pytest.mark.stores(SQLITE)
def test_runs_leave_nothing_open(jobs: Jobs) -> None:
    """However many runs a worker has had, it holds no more files than after the first ones.

    Seen on SQLite, because the sessions of a PostgreSQL are opened as they are needed.
    """
    jobs.worker()
    counts = []
    for turn in range(1, 4):
        queued = [jobs.queued("true") for _ in range(4)]
        for job in queued:
            jobs.until(job.job_id, Status.SUCCEEDED)
        poll_until(lambda turn=turn: len(jobs.durations.runs) == 4 * turn, "the runs to be over")
        counts.append(_descriptors())
    assert counts[2] <= counts[0]


# Leases.


def test_a_run_may_last_longer_than_its_lease(jobs: Jobs) -> None:
    """As long as the worker renews, neither another worker nor the supervisor ends the run."""
    jobs.worker(renew_s=0.2, operations=jobs.operations(lease_s=1.0))
    other = jobs.operations("another")
    job = jobs.queued("sleep 1.6; echo $AUDITRACE_RUN")
    jobs.until(job.job_id, Status.RUNNING)
    leases: set[int] = set()

    def is_over() -> bool:
        leases.update(lease for (lease,) in jobs.store.rows("SELECT lease_until_ns FROM job_runs") if lease)
        assert not other.reclaim()
        return jobs.job(job.job_id).status is not Status.RUNNING

    poll_until(is_over, "the end of the run")
    assert jobs.job(job.job_id).status is Status.SUCCEEDED
    assert jobs.artifacts(job.job_id)["stdout"] == b"1\n"
    assert len(leases) > 2


def test_a_run_that_was_reclaimed_is_stopped(jobs: Jobs, tmp_path: Path) -> None:
    """A worker that finds its run closed by another stops the command, and its report changes nothing."""
    jobs.worker(slots=1, renew_s=0.1)
    pid = tmp_path / "pid"
    job = jobs.queued(STAYS.format(pid=pid))
    command = _pid(pid)
    jobs.clock.advance(61)
    assert jobs.operations("another").reclaim()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert not _is_alive(command)
    assert [run.status for run in jobs.runs(job.job_id)] == [RunStatus.UNKNOWN, RunStatus.SUCCEEDED]
    assert jobs.artifacts(job.job_id, 2)["stdout"] == b""
    assert jobs.stories(job.job_id).count("job.status.transition rejected") == 1


# Killed and frozen.


def test_a_killed_worker_is_replaced(jobs: Jobs, tmp_path: Path, processes: list[Process]) -> None:
    """After SIGKILL the run is closed as unknown and runs again, once the first command and all of it is dead."""
    process = _start(processes, jobs)
    pid = tmp_path / "pid"
    job = jobs.queued(STAYS.format(pid=pid))
    command = _pid(pid)
    supervisor = _parent(command)
    # The kill is held up, to see that nobody hurries past it.
    os.kill(supervisor, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert not jobs.operations().reclaim()
    assert jobs.job(job.job_id).status is Status.RUNNING
    os.kill(supervisor, signal.SIGCONT)
    if jobs.store.kind == POSTGRES:
        # Here it is the lease that holds others back, and it outlasts the kill.
        poll_until(lambda: alive(str(pid)) == [], "the command to be killed")
        jobs.outlive_leases()
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.artifacts(job.job_id, 2)["stdout"] == b""
    assert alive(str(pid)) == []
    assert jobs.stories(job.job_id)[3:] == [
        "job.status.transition success queued>running",
        "job.status.transition unknown running>queued",
        "job.status.transition success queued>running",
        "job.status.transition success running>succeeded",
    ]
    records = jobs.records(job.job_id)[3:]
    asking = jobs.records(job.job_id)[2]
    for record in records:
        assert record.attributes[names.AUDITRACE_INITIATOR_ID] == "anna"
        assert record.attributes[names.AUDITRACE_INITIATOR_RECORD_ID] == asking.record_id
        assert record.attributes[names.AUDITRACE_REQUEST_ID] == asking.attributes[names.AUDITRACE_REQUEST_ID]
    assert len({record.attributes[names.AUDIT_ACTOR_ID] for record in records}) == 2
    assert jobs.store.verify().findings == ()


def test_a_frozen_worker_does_not_run_beside_its_successor(
    jobs: Jobs, tmp_path: Path, processes: list[Process]
) -> None:
    """When a worker stands still its command is killed before the lease ends; afterwards it goes on working."""
    process = _start(processes, jobs, lease_s=1.5, renew_s=0.3)
    pid = tmp_path / "pid"
    job = jobs.queued(STAYS.format(pid=pid))
    _pid(pid)
    pause(process, jobs.store.database)
    worker = jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.artifacts(job.job_id, 2)["stdout"] == b""
    worker.stop(60)
    process.send_signal(signal.SIGCONT)
    poll_until(lambda: "job.status.transition rejected" in jobs.stories(job.job_id), "the late report")
    jobs.until(jobs.queued("true").job_id, Status.SUCCEEDED)
    assert jobs.job(job.job_id).status is Status.SUCCEEDED
    assert [run.status for run in jobs.runs(job.job_id)] == [RunStatus.UNKNOWN, RunStatus.SUCCEEDED]


def test_workers_that_are_killed_again_and_again(jobs: Jobs, tmp_path: Path, processes: list[Process]) -> None:
    """Wherever in its work a worker is killed, no job is lost, no run stays open, and no two ran at the same time."""
    script = f"flock -n {tmp_path}/$AUDITRACE_JOB_ID sleep 0.05 || echo beside"
    queued: list[str] = []
    for progress in (1, 3, 4, 6):
        # New ones in each turn: however fast a worker is, there is something left to do for the next.
        queued += [jobs.queued(script).job_id for _ in range(3)]
        before = len(jobs.records())
        process = _start(processes, jobs)
        poll_until(lambda at=before + progress: len(jobs.records()) >= at, f"{progress} more records")
        process.kill()
        process.wait()
        jobs.outlive_leases()
    jobs.worker()
    for job_id in queued:
        final = jobs.until(job_id, Status.SUCCEEDED, Status.FAILED)
        runs = jobs.runs(job_id)
        assert [run.number for run in runs] == list(range(1, len(runs) + 1))
        assert {run.status for run in runs[:-1]} <= {RunStatus.UNKNOWN}
        # Only a job that lost its worker in each of its attempts may fail.
        last = RunStatus.SUCCEEDED if final.status is Status.SUCCEEDED else RunStatus.UNKNOWN
        assert runs[-1].status is last
        ends = [story for story in jobs.stories(job_id) if story.startswith("job.status.transition")]
        assert len(ends) == 2 * len(runs)
        if final.status is Status.SUCCEEDED:
            assert jobs.artifacts(job_id, len(runs))["stdout"] == b""
    assert jobs.store.rows("SELECT 1 FROM job_runs WHERE lease_until_ns IS NOT NULL") == []
    assert jobs.store.verify().findings == ()


def test_a_worker_process_that_ends_hands_back(jobs: Jobs, tmp_path: Path, processes: list[Process]) -> None:
    """What a process releases on its way out is carried out by another, at no attempt's cost."""
    process = _start(processes, jobs)
    pid = tmp_path / "pid"
    job = jobs.queued(STAYS.format(pid=pid))
    _pid(pid)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert jobs.runs(job.job_id)[-1].status is RunStatus.RELEASED
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert jobs.job(job.job_id).attempts_left == 2


# Without a ledger.


@pytest.fixture
def unwritable(jobs: Jobs, store_kind: str, outage: str) -> AbstractContextManager[None]:
    """An outage that begins with its block."""
    enter, _ = OUTAGES[store_kind, outage]
    return enter(jobs.store, jobs.lane)


in_an_outage = pytest.mark.parametrize(("store_kind", "outage"), [(SQLITE, "disk full"), (POSTGRES, "read-only")])


@in_an_outage
def test_an_outcome_waits_for_the_ledger(
    jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture, unwritable: AbstractContextManager[None]
) -> None:
    """While the ledger takes nothing no end of a run is recorded; once it does it is, as it was, with all files."""
    jobs.worker()
    go = tmp_path / "go"
    os.mkfifo(go)
    job = jobs.queued(f"read x < {go}; head -c 60000 /dev/urandom > out/a; sha256sum < out/a")
    jobs.until(job.job_id, Status.RUNNING)
    with unwritable:
        go.write_text("x\n")
        poll_until(lambda: "a run waits for the ledger" in caplog.text, "the first refused attempt")
        assert jobs.job(job.job_id).status is Status.RUNNING
        assert jobs.artifacts(job.job_id) == {}
    jobs.until(job.job_id, Status.SUCCEEDED)
    artifacts = jobs.artifacts(job.job_id)
    assert len(artifacts["out/a"]) == 60_000
    assert jobs.stories(job.job_id)[3:] == [
        "job.status.transition success queued>running",
        "job.status.transition success running>succeeded",
    ]


@in_an_outage
def test_a_stop_does_not_wait_for_ever_for_the_ledger(
    jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture, unwritable: AbstractContextManager[None]
) -> None:
    """At the end of the grace an outcome that nobody can take is given up, and the run is closed as unknown later."""
    worker = jobs.worker()
    go = tmp_path / "go"
    os.mkfifo(go)
    job = jobs.queued(f'test "$AUDITRACE_RUN" = 2 || read x < {go}; head -c 60000 /dev/urandom > out/a')
    jobs.until(job.job_id, Status.RUNNING)
    with unwritable:
        go.write_text("x\n")
        poll_until(lambda: "a run waits for the ledger" in caplog.text, "the first refused attempt")
        worker.stop(0)
        assert f"the end of run 1 of job {job.job_id} was not recorded" in caplog.text
    jobs.crash()
    jobs.outlive_leases()
    jobs.worker()
    jobs.until(job.job_id, Status.SUCCEEDED)
    assert [run.status for run in jobs.runs(job.job_id)] == [RunStatus.UNKNOWN, RunStatus.SUCCEEDED]
