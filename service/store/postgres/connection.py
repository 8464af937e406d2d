"""Opens sessions on PostgreSQL with the settings that durability needs, and translates the errors of its driver."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper

from service.errors import AuditraceError, BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, SettingsError
from service.store.connections import translating
from service.store.leases import LEASE_S
from service.store.postgres.pooling import OF_OTHER_SESSIONS, require_own_session
from service.store.postgres.session_settings import settle
from service.store.urls import is_postgres
from telemetry.urls import hidden, shown

Session: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_TCP: Final[Mapping[str, str]] = {
    # A connection to a machine that vanished must not block a lane for longer than a lease.
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "11000",
    "application_name": "auditrace",
}
_BUSY: Final = (
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)
# The change and the stored data are right: the change can be made after an operator has repaired the server.
_PASSING: Final[Mapping[tuple[type[psycopg.Error], ...], str]] = {
    (errors.DiskFull, errors.OutOfMemory, errors.InsufficientResources): "the server has no room",
    (errors.ReadOnlySqlTransaction,): "the server takes no writes",
    (errors.InsufficientPrivilege,): "the role of this process lacks a right",
    OF_OTHER_SESSIONS: "a pooler takes sessions away",
    (errors.IoError,): "the disk of the server fails",
}
_REFUSALS: Final = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
)


def connect(
    url: str,
    *,
    read_only: bool = False,
    statement_timeout: str = "30s",
    lock_timeout: str = "2s",
    idle_timeout: str = f"{LEASE_S}s",
) -> Session:
    """Open a session in autocommit mode.

    A commit that returned is as durable as `synchronous_commit = on` makes it, or `remote_apply` if the server is set
    to that. As in libpq, the `PG*` variables give what the URL leaves out. Of several hosts, the one that takes writes
    is used, also for reads: a standby may lag, and lacks the locks by which listings wait for lanes.

    Args:
        url: `postgresql://…`, also with nothing behind the slashes.
        read_only: refuse writes, and accept a standby if it is the only host.
        statement_timeout: the longest that a statement may take; "0" for no limit.
        lock_timeout: the longest that a statement waits for a lock.
        idle_timeout: how long the server lets a transaction wait for its client before it ends the session.

    Raises:
        SettingsError: the URL is not of that form, or the server gives no session that the ledger can work on.
        LedgerUnavailableError: no connection can be opened.
    """
    own = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": idle_timeout,
        "default_transaction_read_only": "on" if read_only else "off",
    }
    conninfo = _conninfo(url, read_only=read_only)
    with translated():
        session = psycopg.connect(conninfo, autocommit=True)
        try:
            # Before the settings, because on a session of a pooler they would change the sessions of others.
            require_own_session(session, lambda: psycopg.connect(conninfo, autocommit=True))
            # One width for all integers, so that a statement is prepared once.
            session.adapters.register_dumper(int, Int8Dumper)
            settle(session, own)
        except BaseException:
            session.close()
            raise
    return session


def connect_again(url: str, *, read_only: bool = False, lock_timeout: str = "2s") -> Session:
    """Open a session as `connect` does, in a running process, which found the database fit when it started.

    Raises:
        LedgerUnavailableError: no connection can be opened, or none that the ledger can still work on.
    """
    try:
        return connect(url, read_only=read_only, lock_timeout=lock_timeout)
    except SettingsError as error:
        reason = "the database has settings that the ledger cannot be kept with"
        raise LedgerUnavailableError("the ledger cannot be used", cause=str(error), reason=reason) from error


def place_of(url: str) -> str:
    """Return the URL without the parts that must not be shown: user, password and options."""
    # The driver's text about a malformed URL may contain the password.
    with suppress(psycopg.ProgrammingError):
        stated = conninfo_to_dict(url)
        if not _holds_user(stated):
            return f"postgresql://{stated.get('host', '')}/{stated.get('dbname', '')}"
    return shown(url)


def translate(error: psycopg.Error) -> AuditraceError:
    """Return the service's error for an error of PostgreSQL.

    Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes"; the driver has a class for each.
    """
    text = " ".join(hidden(error.diag.message_primary or str(error)).split())
    if isinstance(error, _BUSY):
        return LedgerBusyError("the ledger is busy with other writers, try again", cause=text)
    for classes, reason in _PASSING.items():
        if isinstance(error, classes):
            return LedgerUnavailableError("the ledger cannot be used", cause=text, reason=reason)
    if isinstance(error, _REFUSALS):
        return BrokenLedgerError(f"the ledger refuses the change: {text}")
    return LedgerUnavailableError("the ledger cannot be used", cause=text)


translated: Final = translating(psycopg.Error, translate)
"""Opens a block in which errors of the driver are raised as errors of the service."""


def _conninfo(url: str, *, read_only: bool) -> str:
    if not is_postgres(url):
        raise SettingsError(["AUDITRACE_DATABASE is no PostgreSQL URL; expected postgresql://user@host/database"])
    try:
        stated = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # The driver's text may contain parts of the URL, such as the password.
        raise SettingsError(["AUDITRACE_DATABASE is not a PostgreSQL URL: postgresql://user@host/database"]) from error
    if _holds_user(stated):
        encoded = "an @ in a user or password is written %40"
        raise SettingsError([f"AUDITRACE_DATABASE is not a PostgreSQL URL: {encoded}"])
    defaults = pq.Conninfo.get_defaults()
    by_environment = {
        option.keyword.decode(): option.val.decode()
        for option in defaults
        if option.val and option.val != option.compiled
    }
    given = {**by_environment, **stated}
    # The driver needs the encoding to read texts before a session can set it.
    own = {**_TCP, "client_encoding": "UTF8"}
    given.pop("client_encoding", None)
    if not read_only:
        own["target_session_attrs"] = "read-write"
    elif any("," in str(given.get(name, "")) for name in ("host", "hostaddr")):
        own["target_session_attrs"] = "primary"
    return make_conninfo(url, **{name: value for name, value in own.items() if name not in given})


def _holds_user(stated: Mapping[str, str | int | None]) -> bool:
    """Tell whether the host holds an `@`: libpq ends the password at the first one, and would print the rest."""
    return "@" in str(stated.get("host", ""))
