"""What a process asks of a database before it opens it: is it empty, which keys sign, how durable is a commit."""

from collections.abc import Sequence
from typing import Final

from service.errors import SettingsError
from service.ports import Durability, LastCheckpoint, RefusedStream, RegisteredKey
from service.secrets import DeploymentSecret
from service.store.anchors import last_stored
from service.store.postgres.connection import Session, connect, translated
from service.store.postgres.migrate import migrate, missing_steps
from service.store.postgres.statements import SQL, executing
from service.store.signing_keys import registered_keys

_ONE_DISK: Final = (
    "a failover to a standby, or the loss of that disk, loses the last commits; after it run auditrace migrate "
    "--after-restore"
)


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


def is_empty(url: str) -> bool:
    """True while nothing was committed to the database, and no key registered: only then may keys be made for it.

    Raises:
        LedgerUnavailableError: there is no connection to be had.
    """
    session = connect(url, read_only=True)
    try:
        with translated():
            return not any(
                _has_table(session, table) and session.execute(SQL[has_rows]).fetchall()[0][0]
                for table, has_rows in (("audit_checkpoints", "has_signed"), ("audit_streams", "has_streams"))
            )
    finally:
        session.close()


def keys_of(url: str, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
    """Return all keys of a database, the last of which signs now; none of one that was not migrated yet.

    Raises:
        SettingsError: the ledger secret of this process is not that of the database.
        BrokenLedgerError: somebody without the secret stored one of them.
    """
    session = connect(url, read_only=True)
    try:
        with translated():
            return registered_keys(executing(session), secret) if _has_table(session, "signing_keys") else ()
    finally:
        session.close()


def last_and_refused(url: str) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
    """Return the last checkpoint of a database, None before the first, and the streams that none signs over."""
    session = connect(url, read_only=True)
    try:
        with translated():
            last = last_stored(executing(session))
            refused = [RefusedStream(*row) for row in session.execute(SQL["refused_streams"])]
    finally:
        session.close()
    return None if last is None else LastCheckpoint(last.number, last.observed_ns), refused


def durability(url: str, *, needs_standby: bool) -> Durability:
    """Return what the server promises of an acknowledged commit, and which settings break that promise.

    Args:
        url: the database.
        needs_standby: a server on which no standby must confirm commits breaks the promise.
    """
    session = connect(url, read_only=True)
    try:
        with translated():
            ((fsync, full_page_writes, standbys, has_none),) = session.execute(SQL["durability"]).fetchall()
    finally:
        session.close()
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


def _has_table(session: Session, name: str) -> bool:
    ((is_there,),) = session.execute(SQL["has_table"], {"name": name}).fetchall()
    return bool(is_there)
