"""Opens connections to the SQLite file with the settings that the promises rest on, and translates its errors."""

import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from service.errors import AuditraceError, BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, SettingsError
from service.store.connections import translating
from service.store.sqlite.identity import FileId, HeldFile, file_id, hold, require_local

BUSY_TIMEOUT_MS: Final = 5_000
# SQLITE_ERROR is what a table or column that is missing gives: no later time makes it come back.
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
    """Of a connection that writes: the files of SQLite's log, which stay as long as it is open."""

    def require_in_place(self) -> None:
        """Raise when processes that open the database now would get another file, or another log of it.

        Raises:
            LedgerUnavailableError: it was moved, removed or replaced.
        """
        if self.held is None:
            return
        expected = {self.held.path: self.held.file_id, **self.log}
        if any(file_id(path) != known for path, known in expected.items()):
            # No path in it: clients of the API are shown this.
            raise LedgerUnavailableError(
                "the database's file, or its log, was moved, removed or replaced while in use: put it back, or stop "
                "every process that works on it, and start again"
            )

    @contextmanager
    def in_place(self) -> Generator[Self]:
        """Use it, once the file is found to be in its place, and raise the errors of the service.

        Raises:
            LedgerUnavailableError: as `require_in_place` says.
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
    """Return the file that a `sqlite:///path` URL names, with no symbolic link in its path; four slashes: absolute.

    The path is taken as it stands: a percent sign is a part of the name.

    Raises:
        SettingsError: the URL is not of that form.
    """
    path = url.removeprefix(URL_PREFIX)
    if path == url or not path or "?" in path:
        scheme, separator, _ = url.partition("://")
        # Of another database's URL the rest is not shown: it may hold a password.
        shown = repr(url) if scheme.startswith("sqlite") else f"{scheme}://…" if separator else "no URL"
        raise SettingsError([f"AUDITRACE_DATABASE is {shown}; expected sqlite:///path/to/file.db, or postgresql://…"])
    return Path(os.path.realpath(path))


def create(path: Path) -> None:
    """Make an empty file, as SQLite would, but closed to others: it holds inputs and artifacts. One that exists stays.

    An existing file is not even opened, because closing it again would end the locks that this process has on it.

    Raises:
        SettingsError: it cannot be made.

    Source: sqlite.org/howtocorrupt.html, 2.2.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise SettingsError([f"the database {path} cannot be made: {error.strerror}"]) from error


def connect(path: Path, *, read_only: bool = False) -> FileConnection:
    """Open the database file, which exists.

    Writers get WAL and `synchronous=FULL`: a commit that returned survives SIGKILL and, as far as the disk's fsync
    holds, power loss. Every statement waits up to five seconds for another process's writer.

    Raises:
        SettingsError: SQLite cannot keep this file and its log together: as `hold` and `require_local` say.
        LedgerUnavailableError: the file cannot be opened, or, by a writer, not be written.
        LedgerBusyError: by a writer: another process holds it for too long.
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
    """Open the file with parameters of SQLite's URIs, such as `mode=ro`.

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
    # Else savepoints spill to the system's temporary folder, which may be full, or not writable at all.
    connection.execute("PRAGMA temp_store = MEMORY")
    _require_writable(connection)


def _log_of(path: Path) -> Sequence[Path]:
    return [path.with_name(f"{path.name}{end}") for end in _LOG]


def _require_writable(connection: sqlite3.Connection) -> None:
    # A file that cannot be opened for writing, if only for a moment, SQLite opens for reading, for good.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA user_version = {version:d}")
    finally:
        connection.execute("ROLLBACK")


def is_of_disk(error: Exception) -> bool:
    """Tell whether the disk is full or failed, after which a transaction is to be rolled back as a whole.

    Source: sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction".
    """
    return isinstance(error, sqlite3.Error) and _primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def translate(error: sqlite3.Error) -> AuditraceError:
    """Return the service's error for one of SQLite.

    Source: sqlite.org/rescode.html; extended codes keep the primary code in their low byte.
    """
    code = _primary_code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerBusyError("the ledger is busy with another writer: try again")
    if code in _BROKEN:
        return BrokenLedgerError(f"the ledger refuses the change: {error}")
    return LedgerUnavailableError("the ledger cannot be used", cause=str(error), reason=reason_of(error))


translated: Final = translating(sqlite3.Error, translate)
"""Opens a block in which errors of the driver are raised as those of the service."""


def reason_of(error: sqlite3.Error) -> str:
    """Return why the file cannot be used, without its path."""
    return _REASONS.get(_primary_code(error), "the disk fails")


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
