"""A worker of an ordinary user under attack by its own run: `python -m tests.support.unprivileged FOLDER KIND`.

The worker holds a secret file, a database and a port. It prints what the attack of `tests.support.attacks` reached.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

from service.execution.command import control_process
from service.execution.confine import PR_SET_DUMPABLE
from service.execution.supervised import SupervisedRun
from tests.support.attacks import attack
from tests.support.collector import ROOT
from tests.support.runs import confinement, run_spec

UID = 4_321


def interpreter() -> tuple[str, dict[str, str]] | None:
    """Return an interpreter that every user can execute, and its variables; None if this machine has none."""
    found = [sys.executable, "/usr/bin/python3"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{sysconfig.get_path('purelib')}:{ROOT}"}
    # An interpreter has to find itself again, to start the supervisor.
    script = (
        "import subprocess, sys, msgspec, cryptography; "
        "subprocess.run([sys.executable, '-c', 'import sys; print(sys.version_info[:2])'], check=True)"
    )
    for path in found:
        done = subprocess.run(
            [*as_user(), path, "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        if done.stdout.strip() == str(tuple(sys.version_info[:2])):
            return path, environment
    return None


def as_user() -> list[str]:
    """Return the command that executes another one as an ordinary user."""
    if os.geteuid() != 0:
        return []
    return [str(shutil.which("setpriv")), f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]


def main(folder: Path, kind: str) -> None:
    """Attack this process by its own run, and print what was reached."""
    control_process(PR_SET_DUMPABLE, 0)
    secret, database = folder / "secret", folder / "worker.db"
    secret.write_text("x")
    secret.chmod(0o600)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE held (x)")
    with socket.create_server(("127.0.0.1", 0)) as server:
        files = {"secret": str(secret)}
        command = attack(files, {"worker": os.getpid()}, str(database), server.getsockname()[1])
        confinement.set(kind)
        result = SupervisedRun(run_spec(folder / "runs", *command)).wait()
    artifacts = dict(result.artifacts)
    sys.stderr.write(f"{result.detail} {artifacts.get('stderr', b'').decode()}\n")
    sys.stdout.write(artifacts["stdout"].decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
