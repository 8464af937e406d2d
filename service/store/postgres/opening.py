"""What is asked of a server before its ledger is opened: can it be used, and how durable is a commit."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from service.errors import SettingsError
from service.ports import Durability
from service.store.postgres.connection import connect, translated
from service.store.postgres.migrate import migrate, missing_steps
from service.store.postgres.statements import SQL, executing
from service.store.queries import Execute

_ONE_DISK: Final = (
    "a failover to a standby, or the loss of that disk, loses the last commits; after it run auditrace migrate "
    "--after-restore"
)


T = TypeVar("T")


def read(url: str, work: Callable[[Execute], T]) -> T:
    """Return what `work` finds, on a session of its own.

    Raises:
        LedgerUnavailableError: there is no connection to be had.
    """
    session = connect(url, read_only=True)
    try:
        with translated():
            return work(executing(session))
    finally:
        session.close()


def migrate_database(url: str) -> Sequence[str]:
    """Bring the database to the newest schema; returns the names of the steps that were applied.

    Raises:
        SettingsError: it is not a server or database that this version works on.
        TryLaterError: it cannot be changed now.
    """
    # A step may take its time on a large table; that it keeps nobody waiting is seen to by its locks.
    session = connect(url, statement_timeout="0", idle_timeout="0")
    try:
        return migrate(session)
    finally:
        session.close()


def examine(url: str) -> str:
    """Return which server and database it is, once a process could work on it; nothing is made.

    Raises:
        SettingsError: this version does not work on it, a newer one has been here, or its role may not make tables.
        LedgerUnavailableError: there is no connection to be had that takes writes.
    """
    session = connect(url)
    try:
        missing = len(missing_steps(session))
        with translated():
            ((schema, may_create),) = session.execute(SQL["may_create"]).fetchall()
        version = session.info.server_version // 10_000
    finally:
        session.close()
    if missing and not may_create:
        to_do = "grant it CREATE, or run auditrace migrate with a role that may"
        raise SettingsError([f"the database's role may make no tables in the schema {schema}: {to_do}"])
    return f"PostgreSQL {version}{f'; the next start applies {missing} steps to its schema' if missing else ''}"


def durability(url: str, *, needs_standby: bool) -> Durability:
    """Return what the server promises of an acknowledged commit, and which settings break that promise.

    Args:
        url: the database.
        needs_standby: a server on which no standby must confirm commits breaks the promise.
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
