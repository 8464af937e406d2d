"""Reads who runs this command: the users of the process and the host from the kernel, names from the user database.

No variable counts, so that nobody acts under another name by setting one. The only exception is `SUDO_USER`, which has
an attribute of its own and is not the actor.
"""

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from service.bootstrap.command_args import without_secrets
from service.jobs.model import DEFAULT_TENANT
from service.records import AuditContext, Invocation
from telemetry.audit.record import OS_ISSUER, Actor

_LOGIN_UID: Final = Path("/proc/self/loginuid")
_NO_LOGIN: Final = 2**32 - 1
_PLAIN: Final = "\\+$"
_MAX_NAME: Final = 256


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of a process. With a setuid program the two users differ."""

    real_uid: int
    effective_uid: int
    login_uid: int | None
    """The user who logged in, whatever `su` or `sudo` made of him since; None if the kernel knows none."""
    host: str


def this_process() -> Process:
    """Return what the kernel says of this process."""
    return Process(real_uid=os.getuid(), effective_uid=os.geteuid(), login_uid=_login_uid(), host=os.uname().nodename)


def user_name(uid: int) -> str | None:
    """Return the name of a user from the user database; None if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name or None
    except KeyError:
        return None


def invocation_of(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    process: Process | None = None,
    name_of: Callable[[int], str | None] = user_name,
) -> Invocation:
    """Return who runs a command.

    Args:
        arguments: the command and its arguments, as they were given.
        environment: its variables, of which only `SUDO_USER` is used.
        process: what the kernel says; None to ask it about this process.
        name_of: looks a user up.
    """
    process = process or this_process()
    host = _written(process.host)
    login, sudo = process.login_uid, environment.get("SUDO_USER")
    return Invocation(
        actor=user_at_host(process.real_uid, host, name_of),
        host=host,
        owner=_written_name(process.effective_uid, name_of),
        command=without_secrets(arguments),
        login_id=None if login is None or login == process.real_uid else user_at_host(login, host, name_of).id,
        sudo_id=f"os:{_written(sudo)}@{host}" if sudo else None,
    )


def user_at_host(uid: int, host: str | None = None, name_of: Callable[[int], str | None] = user_name) -> Actor:
    """Return a user of a machine as an actor; `host` None is this machine."""
    host = _written(os.uname().nodename) if host is None else host
    return Actor(f"os:{_written_name(uid, name_of)}@{host}", "user", OS_ISSUER)


def context_of(invocation: Invocation) -> AuditContext:
    """Return the context of what a command does."""
    return AuditContext(actor=invocation.actor, tenant_id=DEFAULT_TENANT, source="cli", invocation=invocation)


def _login_uid() -> int | None:
    try:
        uid = int(_LOGIN_UID.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == _NO_LOGIN else uid


def _written_name(uid: int, name_of: Callable[[int], str | None]) -> str:
    name = name_of(uid)
    return f"uid-{uid}" if name is None else _written(name)


def _written(name: str) -> str:
    r"""Return a name so that two names never read the same: `%` and two hex digits for each byte that is not plain.

    Example:
        >>> _written("CORP\\anna"), _written("anna@corp"), _written("ann\u0430")
        ('CORP\\anna', 'anna%40corp', 'ann%D0%B0')
    """
    written = quote(os.fsencode(name), safe=_PLAIN)
    return written if len(written) <= _MAX_NAME else f"{written[:_MAX_NAME]}…"
