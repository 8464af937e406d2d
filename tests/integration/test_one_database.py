"""A SQLite file is one database, whatever it is called: its processes see one another, or are refused."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.integration.mounts import with_bind_mount
from tests.support.collector import ROOT
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process
from tests.support.service import Client, Service

PATIENCE_S: Final = 60.0
TEMPLATES: Final = """
[templates.wait]
description = "Say that it runs, and end when it may"
writes = ["{folder}"]
command = ["sh", "-c", "echo $AUDITRACE_JOB_ID >> {folder}/started; until test -e {folder}/go; do sleep 0.05; done"]
max_attempts = 3
"""


class Named(msgspec.Struct, frozen=True):
    """How a process calls the database: in a URL, from a folder, and behind mounts of its own."""

    path: str
    folder: Path = ROOT
    around: Callable[[Sequence[str]], Sequence[str]] = list


class Deployment:
    """A service without a worker, and workers that call its database by names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.started = folder / "started"
        self.go = folder / "go"
        templates = folder / "templates.toml"
        templates.write_text(TEMPLATES.replace("{folder}", str(folder)))
        settings = {
            "AUDITRACE_TEMPLATES": str(templates),
            "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
            "AUDITRACE_WORKER_SLOTS": "1",
        }
        self.service = Service(self.folder, settings, ["--no-worker"])

    def start(self, named: Named, *arguments: str) -> Process:
        """Start another command on the database, under a name of its own."""
        return start_process(
            named.around([sys.executable, "-m", "service", *(arguments or ("work",))]),
            env={
                **self.service.environment,
                "AUDITRACE_DATABASE": f"sqlite:///{named.path}",
                "PYTHONPATH": str(ROOT),
            },
            cwd=named.folder,
            stderr=subprocess.PIPE,
            text=True,
        )

    def refusal(self, named: Named, *arguments: str) -> str:
        """Return what a command says that is refused before it does anything."""
        before = sorted(path.name for path in self.folder.iterdir())
        process = self.start(named, *arguments)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, said
        assert sorted(path.name for path in self.folder.iterdir()) == before
        return said

    def run(self, client: Client) -> str:
        """Have a job run, and return its id once its command has started."""
        before = len(self.lines())
        job_id = client.run("wait")
        poll_until(lambda: len(self.lines()) > before, "a worker to take the job", PATIENCE_S)
        return job_id

    def lines(self) -> list[str]:
        """Return the commands that have started, in order."""
        return self.started.read_text().split() if self.started.exists() else []

    def checkpoints(self) -> int:
        """Return the number of the last checkpoint."""
        return int(self.service.rows("SELECT coalesce(max(number), 0) FROM audit_checkpoints")[0][0])


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A database that a service holds open."""
    made = Deployment(tmp_path)
    with made.service:
        yield made


@pytest.fixture
def started() -> Iterator[ExitStack]:
    """Ends whatever process a test has started."""
    with ExitStack() as stack:
        yield stack


def _stopped(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said


def _absolute(folder: Path) -> Named:
    return Named(str(folder / "auditrace.db"))


def _relative(folder: Path) -> Named:
    return Named("auditrace.db", folder)


def _with_dots(folder: Path) -> Named:
    return Named(f"./../{folder.name}//./auditrace.db", folder)


def _with_slashes(folder: Path) -> Named:
    return Named(f"{folder}//keys/..//auditrace.db")


def _symlink(folder: Path) -> Named:
    link = folder.parent / "link.db"
    link.symlink_to(folder / "auditrace.db")
    return Named(str(link))


def _symlinked_folder(folder: Path) -> Named:
    link = folder.parent / "link"
    link.symlink_to(folder)
    return Named(str(link / "auditrace.db"))


def _mounted_folder(folder: Path) -> Named:
    target = folder.parent / "mounted"
    target.mkdir()
    return Named(str(target / "auditrace.db"), around=lambda command: with_bind_mount(folder, target, command))


SAME: Final = (_absolute, _relative, _with_dots, _with_slashes, _symlink, _symlinked_folder, _mounted_folder)


@pytest.mark.parametrize("other", SAME, ids=lambda name: name.__name__.strip("_"))
def test_workers_that_call_the_database_differently_run_each_job_once(
    deployment: Deployment, started: ExitStack, other: Callable[[Path], Named]
) -> None:
    """Each sees that the others live: no run is taken from its worker, and no stream is closed under its process."""
    client = deployment.service.client()
    workers = [deployment.start(_absolute(deployment.folder))]
    started.callback(workers[0].kill)
    jobs = [deployment.run(client)]
    workers.append(deployment.start(other(deployment.folder)))
    started.callback(workers[1].kill)
    # The first worker has no slot left, so the second one takes this, once it has looked for runs that nobody has.
    jobs.append(deployment.run(client))
    then = deployment.checkpoints()
    poll_until(lambda: deployment.checkpoints() >= then + 2, "two more checkpoints", PATIENCE_S)
    streams = "SELECT owner, closed FROM audit_streams"
    at_work = {row[0] for row in deployment.service.rows("SELECT worker_id FROM job_runs")}
    assert len(at_work) == 2
    assert [row for row in deployment.service.rows(streams) if row[0] in at_work and row[1]] == []
    deployment.go.touch()
    assert [client.until(job_id, "succeeded", "failed")["status"] for job_id in jobs] == ["succeeded"] * 2
    assert deployment.lines() == jobs
    for worker in workers:
        _stopped(worker)


def _hard_link(folder: Path) -> Named:
    link = folder.parent / "hard.db"
    link.hardlink_to(folder / "auditrace.db")
    return Named(str(link))


def _hard_link_beside(folder: Path) -> Named:
    (folder / "hard.db").hardlink_to(folder / "auditrace.db")
    return Named(str(folder / "auditrace.db"))


def _mounted_file(folder: Path) -> Named:
    target = folder.parent / "mounted.db"
    target.touch()
    database = folder / "auditrace.db"
    return Named(str(target), around=lambda command: with_bind_mount(database, target, command))


def _mounted_file_of_the_same_name(folder: Path) -> Named:
    target = folder.parent / "elsewhere" / "auditrace.db"
    target.parent.mkdir()
    target.touch()
    database = folder / "auditrace.db"
    return Named(str(target), around=lambda command: with_bind_mount(database, target, command))


def _moved(folder: Path) -> Named:
    (folder / "auditrace.db").rename(folder / "moved.db")
    return Named(str(folder / "moved.db"))


def _moved_and_linked(folder: Path) -> Named:
    (folder / "auditrace.db").rename(folder.parent / "moved.db")
    (folder / "auditrace.db").symlink_to(folder.parent / "moved.db")
    return Named(str(folder / "auditrace.db"))


REFUSED: Final = {
    _hard_link: "has 2 names (hard links)",
    _hard_link_beside: "has 2 names (hard links)",
    _mounted_file: "is mounted by itself",
    _mounted_file_of_the_same_name: "is mounted by itself",
    _moved: "is in use under another name, or was moved while in use",
    _moved_and_linked: "is in use under another name, or was moved while in use",
}


@pytest.mark.parametrize(
    ("other", "command"),
    [(other, "work") for other in REFUSED] + [(_hard_link, command) for command in ("serve --port 0", "relay")],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_a_name_beside_which_sqlite_would_begin_another_log_is_refused(
    deployment: Deployment, other: Callable[[Path], Named], command: str
) -> None:
    """One line says what is wrong and what to do, nothing is made, and the process at work is not disturbed."""
    before = deployment.service.rows("SELECT max(position) FROM audit_records")
    named = other(deployment.folder)
    said = deployment.refusal(named, *command.split())
    assert said.startswith("auditrace: the database ")
    assert REFUSED[other] in said
    assert said.count("\n") == 1
    assert not list(deployment.folder.parent.glob("*.owners"))
    _put_back(deployment.folder)
    assert deployment.service.rows("SELECT max(position) FROM audit_records") >= before
    deployment.service.client().create("wait")


def test_a_second_name_of_a_database_in_use_is_not_verified(deployment: Deployment) -> None:
    """What was committed last is in the log beside the other name: a verdict without it would be one of the past."""
    said = deployment.refusal(_hard_link(deployment.folder), "verify", "--database", "--without-key")
    assert "is in use under another name" in said
    assert said.count("\n") == 1


def _put_back(folder: Path) -> None:
    for moved in (folder / "moved.db", folder.parent / "moved.db"):
        if moved.exists():
            moved.replace(folder / "auditrace.db")


def test_doctor_says_that_a_database_has_two_names(deployment: Deployment) -> None:
    """It is told before a process is refused at its start."""
    _hard_link_beside(deployment.folder)
    done = deployment.service.command("doctor", check=False)
    assert done.returncode == 1
    assert "has 2 names (hard links)" in done.stdout
