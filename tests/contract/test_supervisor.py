"""No process of a run outlives the run, its worker or its supervisor: proven by killing each of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.execution.command import boot_ms
from service.execution.outcome import Reason
from service.execution.procfs import descendants
from service.execution.supervised import SupervisedRun
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process
from tests.support.runs import ISOLATIONS, alive, confinement, open_to_all, run_spec


@pytest.fixture(params=ISOLATIONS, autouse=True)
def isolation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Every test holds under every isolation; another user may pass through the folder of the test."""
    open_to_all(tmp_path)
    token = confinement.set(request.param)
    yield request.param
    confinement.reset(token)


ROOT = Path(__file__).parents[2]

# A command whose descendants try to stay: in sessions of their own, orphaned, deaf to SIGTERM.
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for depth in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if depth == 2:
                os.execvpe("sh", ["sh", "-c", "trap '' TERM; while :; do sleep 300; done", sys.argv[1]], {})
            signal.pause()
        os._exit(0)
    os.wait()
if sys.argv[2] == "stay":
    signal.pause()
"""
ALL_STUBBORN = 4
"""The command that stays, and the three that left it."""

WORKER = """
import sys
from pathlib import Path
from service.execution.supervised import SupervisedRun
from tests.support.runs import run_spec, open_to_all
root, script, marker, count = sys.stdin.read().split("\\0")
runs = [SupervisedRun(run_spec(Path(root), "python3", "-I", "-c", script, marker, "stay")) for _ in range(int(count))]
print("started", flush=True)
for run in runs:
    run.wait()
"""


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """A text in the command line of every process of a run; whatever a failed test leaves behind is killed."""
    text = f"marker-{os.getpid()}-{tmp_path.name}"
    yield text
    for pid in alive(text):
        os.kill(pid, signal.SIGKILL)


def _worker(root: Path, marker: str, runs: int) -> Process:
    """Start a process that runs `runs` stubborn commands; its own command line does not hold the marker."""
    worker = start_process(
        [sys.executable, "-c", WORKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert worker.stdin is not None
    worker.stdin.write("\0".join([str(root), STUBBORN, marker, str(runs)]).encode())
    worker.stdin.close()
    return worker


def _nothing_left(root: Path, marker: str) -> bool:
    return alive(marker) == [] and list(root.iterdir()) == []


def test_no_process_survives_the_worker(tmp_path: Path, marker: str) -> None:
    """When a worker is killed with SIGKILL, its runs die with all descendants, and their folders are removed."""
    worker = _worker(tmp_path, marker, 2)
    poll_until(lambda: len(alive(marker)) == 2 * ALL_STUBBORN, "both runs with all their processes")
    worker.kill()
    worker.wait()
    poll_until(lambda: _nothing_left(tmp_path, marker), "the end of both runs")


@pytest.mark.parametrize("seen", [0, 1, 2, 3, 5, 8])
def test_no_process_survives_a_worker_that_dies_early(tmp_path: Path, marker: str, seen: int) -> None:
    """Whenever the worker is killed while it starts runs, nothing of them is left."""
    worker = _worker(tmp_path, marker, 4)
    poll_until(lambda: len(alive(marker)) >= seen, f"{seen} processes")
    worker.kill()
    worker.wait()
    # A supervisor that has not begun yet finds its control pipe closed; it is a process until then.
    poll_until(lambda: _supervisors(tmp_path) == [] and alive(marker) == [], "the end of all runs")


def test_no_process_survives_its_run(tmp_path: Path, marker: str) -> None:
    """A command that ends and leaves processes in other sessions behind takes them with it."""
    result = SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", STUBBORN, marker, "leave")).wait()
    assert result.reason is Reason.SUCCESS
    assert _nothing_left(tmp_path, marker)


def test_no_process_survives_a_cancellation(tmp_path: Path, marker: str) -> None:
    """A cancelled run that ignores SIGTERM is over 5 s later, with all its descendants."""
    run = SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", STUBBORN, marker, "stay"))
    poll_until(lambda: len(alive(marker)) == ALL_STUBBORN, "all processes of the run")
    run.cancel("cancelled")
    result = run.wait()
    assert (result.reason, result.signal) == (Reason.CANCELLED, signal.SIGKILL)
    assert result.duration_ms >= 5_000
    assert _nothing_left(tmp_path, marker)


def test_no_process_survives_its_supervisor(tmp_path: Path, marker: str) -> None:
    """When the supervisor itself is killed, the worker kills what it left and reports the run as lost."""
    run = SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", STUBBORN.replace("{}", "os.environ"), marker, "stay"))
    poll_until(lambda: len(alive(marker)) == ALL_STUBBORN, "all processes of the run")
    [supervisor] = _supervisors(tmp_path)
    os.kill(supervisor, signal.SIGKILL)
    result = run.wait()
    assert (result.reason, result.error_type) == (Reason.SUPERVISOR_LOST, "supervisor_lost")
    assert _nothing_left(tmp_path, marker)


def test_a_fork_storm_ends_with_its_run(tmp_path: Path, marker: str) -> None:
    """Processes that keep forking into new sessions while they are killed do not get away."""
    storm = """
import os, signal, sys
for _ in range(8):
    if os.fork() == 0:
        for _ in range(100_000):
            os.setsid()
            if os.fork():
                os._exit(0)
"""
    SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", storm, marker)).wait()
    assert _nothing_left(tmp_path, marker)


def test_a_signal_to_the_whole_service_is_the_workers_to_decide(tmp_path: Path, marker: str) -> None:
    """A supervisor that is asked to end lets its run go on: only its worker stops a run."""
    run = SupervisedRun(run_spec(tmp_path, "sh", "-c", "mkfifo go; read x < go; echo went on", marker))
    poll_until(lambda: list(tmp_path.glob("*/work/go")) != [], "the command")
    [supervisor] = _supervisors(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(supervisor, number)
    [fifo] = tmp_path.glob("*/work/go")
    fifo.write_text("x\n")
    result = run.wait()
    assert (result.reason, dict(result.artifacts)["stdout"]) == (Reason.SUCCESS, b"went on\n")


def test_a_cancelled_run_that_had_ended_keeps_its_end(tmp_path: Path) -> None:
    """A cancellation that comes after the end of the command changes nothing."""
    script = f"touch {tmp_path / 'began'}; exit 4"
    run = SupervisedRun(run_spec(tmp_path / "runs", "sh", "-c", script, writes=[str(tmp_path)]))
    poll_until((tmp_path / "began").exists, "the command")
    [supervisor] = _supervisors(tmp_path)
    poll_until(lambda: descendants(supervisor) == [], "the end of the command")
    run.cancel("cancelled")
    result = run.wait()
    assert (result.reason, result.exit_code) == (Reason.EXIT, 4)


def test_a_run_ends_with_its_lease(tmp_path: Path, marker: str) -> None:
    """When the lease is not extended the run is killed at its end, with all descendants, by the supervisor itself."""
    lease_until_ms = boot_ms() + 300
    run = SupervisedRun(
        run_spec(tmp_path, "python3", "-I", "-c", STUBBORN, marker, "stay", lease_until_ms=lease_until_ms)
    )
    result = run.wait()
    assert boot_ms() >= lease_until_ms
    assert (result.reason, result.error_type, result.signal) == (Reason.LEASE_LOST, "lease_lost", signal.SIGKILL)
    assert _nothing_left(tmp_path, marker)


def test_a_run_goes_on_as_long_as_its_lease_is_extended(tmp_path: Path, marker: str) -> None:
    """An extension counts however late it comes, as long as it comes in time; one that shortens counts as well."""
    run = SupervisedRun(run_spec(tmp_path, "sh", "-c", "sleep 300; true", marker, lease_until_ms=boot_ms() + 60_000))
    poll_until(lambda: alive(marker) != [], "the command")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run.wait)
        run.extend(boot_ms() + 3_600_000)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        run.extend(boot_ms())
        assert waiting.result().reason is Reason.LEASE_LOST
    run.extend(boot_ms() + 60_000)


def _supervisors(root: Path) -> list[int]:
    """Return the supervisors of runs under `root`: the parents of their commands, and those still starting one."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            is_supervisor = b"service.execution.supervisor" in (folder / "cmdline").read_bytes()
            log = str((folder / "fd" / "2").readlink())
        except OSError:
            # Gone, or another user's.
            continue
        if is_supervisor and log.startswith(str(root)):
            found.append(int(folder.name))
    return found
