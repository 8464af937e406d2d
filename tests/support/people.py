"""Runs commands as other users of this machine, with variables that lie about who and where."""

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.service import Service

LIES: Final[Mapping[str, str]] = {
    "USER": "mallory",
    "LOGNAME": "mallory",
    "USERNAME": "mallory",
    "HOSTNAME": "elsewhere",
    "SUDO_USER": "bob smith",
}
HOST: Final = os.uname().nodename
LOGIN_UID: Final = Path("/proc/self/loginuid")
NO_LOGIN: Final = 2**32 - 1

_OF_PEOPLE: Final = ("audit.actor.", "auditrace.actor.", "host.", "process.", "auditrace.credential.")


def run_as(
    uid: int, service: Service, *arguments: str, login: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run an `auditrace` command as another user, whom the kernel lets read and write every file.

    A user who is not root cannot become another one: then the command runs as the user of the test run.
    """
    command = [sys.executable, "-m", "service", *arguments]
    if os.geteuid() == 0:
        keeps = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        command = ["setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups", *keeps, "--", *command]
    environment = {**service.environment, **LIES}
    return subprocess.run(
        [*login, *command], env=environment, cwd=service.root, capture_output=True, text=True, check=False, timeout=60
    )


def id_of(uid: int) -> str:
    """Return the actor id of a user of this host; of the test run's own user if that cannot become another one."""
    return f"os:{name_of(uid)}@{HOST}"


def name_of(uid: int) -> str:
    """Return the name of such a user."""
    try:
        return pwd.getpwuid(_possible(uid)).pw_name
    except KeyError:
        return f"uid-{_possible(uid)}"


def said_of(uid: int, *arguments: str, login_uid: int | None = None) -> dict[str, Any]:
    """Return what the record of such a command says of its user."""
    login = int(LOGIN_UID.read_text()) if login_uid is None else login_uid
    logged_in = {} if login in {NO_LOGIN, _possible(uid)} else {"auditrace.actor.login.id": id_of(login)}
    return {
        "audit.actor.id": id_of(uid),
        "audit.actor.type": "user",
        "auditrace.actor.issuer": "os",
        "auditrace.actor.sudo.id": f"os:bob%20smith@{HOST}",
        "host.name": HOST,
        "process.owner": name_of(uid),
        "process.command_args": ["auditrace", *arguments],
        **logged_in,
    }


def of_people(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of the person."""
    return {name: value for name, value in attributes.items() if name.startswith(_OF_PEOPLE)}


def _possible(uid: int) -> int:
    return uid if os.geteuid() == 0 else os.getuid()
