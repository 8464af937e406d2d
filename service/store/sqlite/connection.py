"""Opens connections to the SQLite file with the settings that durability needs, and translates its errors."""

import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from service.errors import AuditraceError, BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, SettingsError
from service.store.connections import translating
from service.store.sqlite.identity import FileId, HeldFile, file_id, hold, require_local
from telemetry import urls

BUSY_TIMEOUT_MS: Final = 5_000
# SQLITE_ERROR means a missing table or column, which does not come back by waiting.
_BROKEN: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_ERROR,
    }
)
_REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk has no room",
    sqlite3.SQLITE_READONLY: "the database's file, or its file system, takes no writes",
    sqlite3.SQLITE_CANTOPEN: "the database's file cannot be opened",
    sqlite3.SQLITE_PERM: "the database's file cannot be opened",
}
URL_PREFIX: Final = "sqlite:///"
_LOG: Final = ("-wal", "-shm")


class FileConnection(sqlite3.Connection):
    """A connection that knows which file it has open."""

    held: HeldFile | None = None
    log: Mapping[Path, FileId | None] = {}
    """The files of SQLite's log, for a connection that writes; they exist as long as it is open."""

    def require_in_place(self) -> None:
        """Raise if processes that open the database now would get another file, or another log.

        Raises:
            LedgerUnavailableError: the file or its log was moved, removed or replaced.
        """
        if self.held is None:
            return
        expected = {self.held.path: self.held.file_id, **self.log}
        if any(file_id(path) != known for path, known in expected.items()):
            # The text has no path, because clients of the API see it.
            raise LedgerUnavailableError(
                "the database's file, or its log, was moved, removed or replaced while in use: put it back, or stop "
                "every process that works on it, and start again"
            )

    @contextmanager
    def in_place(self) -> Generator[Self]:
        """Check that the file is in its place, then open a block in which errors are raised as those of the service.

        Raises:
            LedgerUnavailableError: as `require_in_place` does.
        """
        self.require_in_place()
        with translated():
            yield self

    def close(self) -> None:
        """Close it; may be called again."""
        super().close()
        held, self.held = self.held, None
        if held is not None:
            held.release()


def database_path(url: str) -> Path:
    """Return the file that a `sqlite:///path` URL names, without symbolic links; four slashes for an absolute path.

    The path is not decoded: a percent sign is a part of the name.

    Raises:
        SettingsError: the URL is not of that form.
    """
    path = url.removeprefix(URL_PREFIX)
    if path == url or not path or "?" in path:
        scheme, separator, _ = url.partition("://")
        # Only the scheme of another database's URL is shown, because the rest may hold a password.
        written = repr(urls.shown(url)) if scheme.startswith("sqlite") else f"{scheme}://…" if separator else "no URL"
        raise SettingsError([f"AUDITRACE_DATABASE is {written}; expected sqlite:///path/to/file.db, or postgresql://…"])
    return Path(os.path.realpath(path))


def create(path: Path) -> None:
    """Make an empty file if there is none, readable by its owner only, because it will hold inputs and artifacts.

    An existing file is not opened, because closing it again would end the locks that this process has on it.

    Raises:
        SettingsError: the file cannot be made.

    Source: sqlite.org/howtocorrupt.html, 2.2.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise SettingsError([f"the database {path} cannot be made: {error.strerror}"]) from error


def connect(path: Path, *, read_only: bool = False) -> FileConnection:
    """Open the database file, which must exist.

    Connections that write use WAL and `synchronous=FULL`: a commit that returned survives SIGKILL and, as far as the
    disk's fsync holds, power loss. Every statement waits up to five seconds for another process that writes.

    Raises:
        SettingsError: SQLite cannot keep this file and its log together, as `hold` and `require_local` say.
        LedgerUnavailableError: the file cannot be opened, or cannot be written by a connection that writes.
        LedgerBusyError: another process locks the file for too long; only for a connection that writes.
    """
    held = hold(path)
    try:
        if not read_only:
            require_local(held.path)
        with translated():
            connection = opened(held.path, "mode=ro" if read_only else "mode=rw")
    except BaseException:
        held.release()
        raise
    connection.held = held
    try:
        with translated():
            if not read_only:
                _prepare_to_write(connection)
                connection.log = {path: file_id(path) for path in _log_of(held.path)}
    except BaseException:
        connection.close()
        raise
    return connection


def opened(path: Path, parameters: str) -> FileConnection:
    """Open the file with parameters of an SQLite URI, such as `mode=ro`.

    Raises:
        sqlite3.Error: it cannot be opened.

    Source: sqlite.org/uri.html.
    """
    connection = FileConnection(
        f"file:{_quoted(path)}?{parameters}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA recursive_triggers = ON")
    return connection


def _prepare_to_write(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # By default savepoints spill to the system's temporary folder, which may be full or not writable.
    connection.execute("PRAGMA temp_store = MEMORY")
    _require_writable(connection)


def _log_of(path: Path) -> Sequence[Path]:
    return [path.with_name(f"{path.name}{end}") for end in _LOG]


def _require_writable(connection: sqlite3.Connection) -> None:
    # If the file cannot be opened for writing, even for a moment, SQLite opens it for reading only, for good.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA user_version = {version:d}")
    finally:
        connection.execute("ROLLBACK")


def is_of_disk(error: Exception) -> bool:
    """Tell whether the disk is full or failed; the whole transaction must then be rolled back.

    Source: sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction".
    """
    return isinstance(error, sqlite3.Error) and _primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def translate(error: sqlite3.Error) -> AuditraceError:
    """Return the service's error for an error of SQLite.

    Source: sqlite.org/rescode.html; extended codes keep the primary code in their low byte.
    """
    code = _primary_code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerBusyError("the ledger is busy with another writer: try again")
    if code in _BROKEN:
        return BrokenLedgerError(f"the ledger refuses the change: {error}")
    return LedgerUnavailableError("the ledger cannot be used", cause=str(error), reason=reason_of(error))


translated: Final = translating(sqlite3.Error, translate)
"""Opens a block in which errors of the driver are raised as errors of the service."""


def reason_of(error: sqlite3.Error) -> str:
    """Return why the file cannot be used, without its path."""
    return _REASONS.get(_primary_code(error), "the disk fails")


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
