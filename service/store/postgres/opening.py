"""Checks a server before its ledger is opened: whether it can be used, and how durable a commit is."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from service.errors import SettingsError
from service.ports import Durability
from service.store.postgres.connection import Session, connect, translated
from service.store.postgres.migrate import migrate, missing_steps
from service.store.postgres.rights import excess_of, grant, require_grantable, require_rights, rights_of
from service.store.postgres.statements import SQL, executing
from service.store.queries import Execute

_ONE_DISK: Final = (
    "a failover to a standby, or the loss of that disk, loses the last commits; after it run auditrace migrate "
    "--after-restore"
)


T = TypeVar("T")


def read(url: str, work: Callable[[Execute], T]) -> T:
    """Run `work` on a session of its own and return its result.

    Raises:
        LedgerUnavailableError: no connection can be opened.
    """
    session = connect(url, read_only=True)
    try:
        with translated():
            return work(executing(session))
    finally:
        session.close()


def migrate_database(url: str) -> Sequence[str]:
    """Migrate the database to the newest schema, and return the names of the applied steps.

    Raises:
        SettingsError: this version does not work on the server or database.
        TryLaterError: the database cannot be changed now.
    """
    # No time limit: a step may be slow on a large table, but its locks do not make writers wait.
    session = connect(url, statement_timeout="0", idle_timeout="0")
    try:
        return migrate(session)
    finally:
        session.close()


def require_role(url: str, role: str) -> None:
    """Raise as `rights.require_grantable` does."""
    with contextlib.closing(connect(url)) as session:
        require_grantable(session, role)


def grant_rights(url: str, role: str, *, only_reads: bool) -> str | None:
    """Give a role rights, as `rights.grant` does; return what it may do beyond them, None if nothing."""
    with contextlib.closing(connect(url)) as session:
        return excess_of(grant(session, role, only_reads=only_reads))


def describe_rights(url: str) -> str:
    """Say what the role of the URL may do beyond what the service needs; a SettingsError says what it lacks."""
    with contextlib.closing(connect(url)) as session:
        rights = rights_of(session)
    if rights is None:
        return "there are no tables yet"
    require_rights(rights)
    excess = excess_of(rights)
    if excess is None:
        return f"the role {rights.role} may do what the service needs, and nothing else"
    return (
        f"remark: the role {rights.role} may do more than the service needs: {excess}; docs/scale.md, "
        '"Two roles", says how the service works with a role that cannot change the records'
    )


def examine(url: str) -> str:
    """Check that a process could work on the database, and describe the server in a few words; nothing is made.

    Raises:
        SettingsError: this version does not work on it, a newer one changed it, or its role lacks a right.
        LedgerUnavailableError: no connection that takes writes can be opened.
    """
    with contextlib.closing(connect(url)) as session:
        missing = _missing_steps(session)
        with translated():
            ((schema, may_create),) = session.execute(SQL["may_create"]).fetchall()
        version = session.info.server_version // 10_000
    if missing and not may_create:
        to_do = "grant it CREATE, or run auditrace migrate with a role that may"
        raise SettingsError([f"the database's role may make no tables in the schema {schema}: {to_do}"])
    return f"PostgreSQL {version}{f'; the next start applies {missing} steps to its schema' if missing else ''}"


def _missing_steps(session: Session) -> int:
    """Return how many steps the next start applies, once the role is known to have the rights for that."""
    rights = rights_of(session)
    if rights is None:
        return len(missing_steps(session))
    if not rights.may_read_steps:
        require_rights(rights)
    missing = len(missing_steps(session))
    if missing and not rights.may_migrate:
        lacks = f"the schema lacks {missing} steps of this version, and the role {rights.role} does not own it"
        raise SettingsError([f"{lacks}: run `auditrace migrate --grants {rights.role}` as {rights.owner}"])
    if not missing:
        require_rights(rights)
    return missing


def durability(url: str, *, needs_standby: bool) -> Durability:
    """Return what the server promises for an acknowledged commit, and which settings break that promise.

    Args:
        url: the database.
        needs_standby: it breaks the promise if no standby must confirm commits.
    """
    ((fsync, full_page_writes, standbys, has_none),) = read(url, lambda execute: list(execute("durability", {})))
    problems: list[str] = []
    if fsync != "on":
        problems.append("fsync is off: a crash of the database's machine loses or breaks what was committed")
    if full_page_writes != "on":
        problems.append("full_page_writes is off: a crash in the middle of a write can break what was committed before")
    if has_none and standbys:
        problems.append(
            f"none of the standbys of synchronous_standby_names ({standbys}) is connected: every change waits for one, "
            "and its client with it; start it, or name another one"
        )
    if needs_standby and not standbys:
        problems.append(
            f"synchronous_standby_names is empty: {_ONE_DISK}; name a standby, or set AUDITRACE_POSTGRES_STANDBY="
            "optional to accept that"
        )
    if standbys:
        return Durability("an acknowledged commit is on the disks of the server and of a standby", problems)
    return Durability(f"an acknowledged commit is on the server's disk, and survives a crash; {_ONE_DISK}", problems)
