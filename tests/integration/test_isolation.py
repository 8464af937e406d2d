"""A run is a stranger: what a hostile command reaches of a real service, under each isolation."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from service.bootstrap.isolating import confinement_of
from service.config import read_settings
from service.execution.outcome import Reason
from service.execution.procfs import descendants
from service.execution.supervised import SupervisedRun
from tests.integration.mounts import with_bind_mount
from tests.support.attacks import attack
from tests.support.collector import ROOT
from tests.support.poll_until import poll_until
from tests.support.runs import CONFINEMENT, alive, confinement, open_to_all, run_spec
from tests.support.service import Service
from tests.support.unprivileged import as_user, interpreter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a run another user")

SECRETS = {"read signing key", "read ledger secret", "read administrator's key", "read database", "read archive"}
TOUCHED = {*SECRETS, "read other run", "change the database"}
NETWORK = {"connect to the service", "find a way out"}
PROCESSES = {"signal the service", "signal the supervisor of another run"}
WRITTEN = {"write /etc/", "write /usr/", "write /"}
REACHED = {
    "bubblewrap": set[str](),
    "bubblewrap with the network": NETWORK,
    # The folder of another run is open to the user of the service only.
    "uid": NETWORK,
    # Without another user, files and signals are open; memory, environment and descriptors are not.
    "none": {*TOUCHED, *NETWORK, *PROCESSES, *WRITTEN, "write /dev/"},
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys, database and archive."""
    with Service(tmp_path_factory.mktemp("victim"), {"AUDITRACE_ISOLATION": "required"}) as service:
        yield service


def _attack(victim: Service, other: Path, supervisor: int) -> Sequence[str]:
    assert victim.process is not None
    keys = victim.folder / "keys"
    files = {
        "signing key": keys / "signing.pem",
        "ledger secret": keys / "ledger.secret",
        "administrator's key": keys / "admin.key",
        "database": victim.database,
        "archive": victim.archive,
        "other run": other,
    }
    return attack(
        {name: str(path) for name, path in files.items()},
        {"service": victim.process.pid, "supervisor of another run": supervisor},
        str(victim.database),
        urlsplit(victim.url).port or 0,
    )


@pytest.mark.parametrize("kind", REACHED)
def test_a_hostile_command_reaches_only_what_its_isolation_leaves_open(
    tmp_path: Path, victim: Service, kind: str
) -> None:
    """In a sandbox it reaches nothing; as another user the network; else also files of its user, and its processes."""
    open_to_all(tmp_path)
    open_to_all(victim.folder)
    poll_until(victim.archive.exists, "the archive")
    token = confinement.set(kind.partition(" ")[0])
    other = SupervisedRun(run_spec(tmp_path, "sh", "-c", "echo secret > in/x; mkfifo go; read x < go"))
    try:
        poll_until(lambda: list(tmp_path.glob("*/work/go")) != [], "the other run")
        [seen] = tmp_path.glob("*/work/in/x")
        if kind != "none":
            seen.chmod(0o600)
        [supervisor] = [pid for pid in descendants(os.getpid()) if _is_supervisor(pid)]
        command = _attack(victim, seen, supervisor)
        result = SupervisedRun(run_spec(tmp_path, *command, network="network" in kind)).wait()
    finally:
        other.kill()
        other.wait()
        confinement.reset(token)
    artifacts = dict(result.artifacts)
    assert result.reason is Reason.SUCCESS, artifacts["stderr"].decode()
    assert set(json.loads(artifacts["stdout"])) == REACHED[kind]
    planted = victim.rows("SELECT count(*) FROM sqlite_master WHERE name = 'planted'")[0][0]
    assert planted == (kind == "none")


def _is_supervisor(pid: int) -> bool:
    return b"service.execution.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("kind", "reached"),
    [
        ("bubblewrap", set[str]()),
        # The bounding set is of no use without a way to gain privileges.
        ("none", {"read secret", "change the database", "signal the worker", "keep CapBnd", *NETWORK}),
    ],
)
def test_a_worker_without_root_is_kept_from_its_runs_too(tmp_path: Path, kind: str, reached: set[str]) -> None:
    """An ordinary user's runs are in a sandbox as well; without it, they reach files, but not the worker's memory."""
    found = interpreter()
    assert found is not None, "no interpreter that an ordinary user can execute: install python3 of the system"
    program, environment = found
    open_to_all(tmp_path)
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [*as_user(), program, "-m", "tests.support.unprivileged", str(tmp_path), kind],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == reached, done.stderr


@pytest.mark.parametrize("kind", ["uid", "bubblewrap"])
def test_nothing_survives_by_leaving_its_parents(tmp_path: Path, kind: str) -> None:
    """A process that forks twice, has a session of its own and closes everything is gone when the run is over."""
    open_to_all(tmp_path)
    marker = f"daemon-{os.getpid()}-{kind}"
    script = (
        "import os, sys\n"
        "for _ in range(3):\n"
        "    if os.fork():\n"
        "        os._exit(0) if _ else os.wait()\n"
        "        sys.exit(0)\n"
        "    os.setsid()\n"
        "os.closerange(0, 1000)\n"
        "os.execve('/bin/sh', ['sh', '-c', 'trap \"\" TERM HUP; while :; do sleep 300; done', sys.argv[1]], {})\n"
    )
    token = confinement.set(kind)
    try:
        result = SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", script, marker)).wait()
    finally:
        confinement.reset(token)
    assert (result.reason, alive(marker), list(tmp_path.iterdir())) == (Reason.SUCCESS, [], [])


def test_all_of_a_sandbox_dies_with_worker_and_supervisor(tmp_path: Path) -> None:
    """When both are killed at once, the kernel ends all processes of the sandbox: nobody else has to find them."""
    marker = f"orphan-{os.getpid()}"
    token = confinement.set("bubblewrap")
    try:
        script = f"setsid sh -c 'while :; do sleep 300; done' {marker} & mkfifo go; read x < go"
        run = SupervisedRun(run_spec(tmp_path, "sh", "-c", script))
        poll_until(lambda: alive(marker) != [] and list(tmp_path.glob("*/work/go")) != [], "the command")
        [supervisor] = [pid for pid in descendants(os.getpid()) if _is_supervisor(pid)]
        os.kill(supervisor, signal.SIGKILL)
        poll_until(lambda: alive(marker) == [], "the end of the sandbox")
    finally:
        confinement.reset(token)
    assert run.wait().reason is Reason.SUPERVISOR_LOST
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines have no x32 and i386")
def test_calls_of_a_foreign_abi_end_the_command(tmp_path: Path) -> None:
    """The numbers of x32 mean the same calls, so that the filter of the native ones would not see them."""
    open_to_all(tmp_path)
    script = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39)"
    token = confinement.set("bubblewrap")
    try:
        result = SupervisedRun(run_spec(tmp_path, "python3", "-I", "-c", script)).wait()
    finally:
        confinement.reset(token)
    assert (result.reason, result.signal) == (Reason.SIGNAL, signal.SIGSYS)


def test_a_run_sees_only_the_folders_that_its_plan_names(tmp_path: Path) -> None:
    """Of the worker's files it sees the named ones; within them, the service's own folders and other runs are empty."""
    shown, keys, runs = tmp_path / "shown", tmp_path / "shown" / "keys", tmp_path / "shown" / "runs"
    (shown / "inner").mkdir(parents=True)
    (keys / "inner").mkdir(parents=True)
    (shown / "inner" / "seen").write_text("seen")
    (shown / "alone").write_text("secret")
    (keys / "signing.pem").write_text("secret")
    (tmp_path / "link").symlink_to(shown)
    script = "cat $1/inner/seen $1/alone; ls $1/keys | wc -l; ls $1/runs | wc -l; ls ..; touch $1/new; ls $2"
    arguments = ["sh", "-c", script, "sh", str(tmp_path / "link"), str(tmp_path / "elsewhere")]
    hidden = msgspec.structs.replace(CONFINEMENT["bubblewrap"], hidden=(keys / "inner", keys, shown / "alone"))
    spec = run_spec(runs, *arguments, reads=[str(tmp_path / "link")])
    result = SupervisedRun(msgspec.structs.replace(spec, confinement=hidden)).wait()
    said = dict(result.artifacts)
    assert said["stdout"].split() == [b"seen0", b"0", b"work"], said
    assert b"Read-only file system" in said["stderr"]
    assert not (shown / "new").exists()


def test_a_run_cannot_move_what_is_hidden_in_a_folder_that_it_may_change(tmp_path: Path) -> None:
    """Neither the hidden folder, nor one above it, nor a hidden file: the service would lose its database."""
    changed, keys = tmp_path / "changed", tmp_path / "changed" / "app" / "var" / "keys"
    keys.mkdir(parents=True)
    (keys / "signing.pem").write_text("secret")
    (changed / "app" / "jobs.toml").write_text("[templates]")
    script = (
        "cd $1; mv app moved; mv app/var moved; mv app/var/keys moved; mv app/jobs.toml moved; rm -r app; touch app/x"
    )
    hidden = msgspec.structs.replace(CONFINEMENT["bubblewrap"], hidden=(keys, changed / "app" / "jobs.toml"))
    spec = run_spec(tmp_path / "runs", "sh", "-c", script, "sh", str(changed), writes=[str(changed)])
    said = dict(SupervisedRun(msgspec.structs.replace(spec, confinement=hidden)).wait().artifacts)
    assert said["stderr"].count(b"Device or resource busy") >= 5, said
    assert (keys / "signing.pem").read_text() == "secret"
    assert (changed / "app" / "jobs.toml").read_text() == "[templates]"
    assert (changed / "app" / "x").exists()


def test_a_sandbox_that_cannot_be_made_is_a_start_that_failed(tmp_path: Path) -> None:
    """The run never falls back to less isolation than its record states."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no namespaces today' >&2\nexit 1\n")
    broken.chmod(0o755)
    confinement = msgspec.structs.replace(CONFINEMENT["bubblewrap"], bwrap=str(broken))
    spec = msgspec.structs.replace(run_spec(tmp_path / "runs", "touch", "out/x"), confinement=confinement)
    result = SupervisedRun(spec).wait()
    assert (result.reason, result.detail) == (
        Reason.START_FAILED,
        "the isolation of the run could not be made: bwrap: no namespaces today",
    )
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "stated"), [("required", "bubblewrap"), ("preferred", "bubblewrap"), ("off", "none")]
)
def test_the_record_that_starts_a_run_states_its_isolation(tmp_path: Path, setting: str, stated: str) -> None:
    """The claim is committed before the command starts, and says what will keep it from the service."""
    with Service(tmp_path, {"AUDITRACE_ISOLATION": setting}) as service:
        client = service.client()
        job_id = client.run("greet", name="you")
        client.until(job_id, "succeeded")
        transitions = [each for each in client.trail(job_id) if each["event_name"] == "job.status.transition"]
    said = [each["attributes"].get("auditrace.run.isolation") for each in transitions]
    assert said == [stated, None]


def _without_bubblewrap(service: Service, setting: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    found = CONFINEMENT["bubblewrap"].bwrap
    assert found is not None
    command = with_bind_mount(Path("/dev/null"), Path(found), [sys.executable, "-m", "service", *arguments])
    environment = {**service.environment, "AUDITRACE_ISOLATION": setting}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_doctor_says_which_isolation_there_is_and_what_is_missing(tmp_path: Path) -> None:
    """A sandbox that is only preferred is a remark; one that is required is wrong; both say what to do."""
    service = Service(tmp_path)

    def said(done: "subprocess.CompletedProcess[str]") -> tuple[str, str]:
        (one,) = [each for each in json.loads(done.stdout)["checks"] if each["check"] == "isolation"]
        return one["status"], one["detail"]

    to_do = "bubblewrap is not installed: apt-get install bubblewrap"
    assert said(service.command("doctor", "--json", check=False)) == ("ok", "bubblewrap: every run has a sandbox")
    assert said(_without_bubblewrap(service, "preferred", "doctor", "--json")) == ("ok", f"uid: {to_do}")
    assert said(_without_bubblewrap(service, "off", "doctor", "--json")) == ("ok", "off")
    wrong = ("wrong", f"AUDITRACE_ISOLATION is required, and {to_do}")
    assert said(_without_bubblewrap(service, "required", "doctor", "--json")) == wrong


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_worker_does_not_start_without_the_sandbox_that_is_required(tmp_path: Path, command: str) -> None:
    """Nothing is made; the message says what is missing and how to get it."""
    service = Service(tmp_path / "service")
    done = _without_bubblewrap(service, "required", command)
    assert done.returncode == 2
    assert "AUDITRACE_ISOLATION is required, and bubblewrap is not installed: apt-get install bubblewrap" in done.stderr
    assert not service.database.exists()


def test_the_folder_of_a_database_is_hidden_also_behind_a_link(tmp_path: Path) -> None:
    """What a link names is hidden, not the folder in which the link lies."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "ledger.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "ledger.db")
    hidden = confinement_of(read_settings({"AUDITRACE_DATABASE": f"sqlite:///{tmp_path}/link.db"})).hidden
    assert tmp_path / "real" in hidden
    assert tmp_path not in hidden
