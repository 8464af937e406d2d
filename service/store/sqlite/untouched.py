"""Opens a database file for reading without making, changing or removing any file beside it, as evidence must be read.

SQLite by itself makes a `-wal` and a `-shm` beside a file in WAL mode, and cannot read such a file where it cannot
make them. Source: sqlite.org/wal.html, "Read-Only Databases"; sqlite.org/uri.html.
"""

import errno
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from service.errors import LedgerBusyError, LedgerUnavailableError
from service.store.sqlite.connection import FileConnection, connect, opened, translated
from service.store.sqlite.identity import hold
from telemetry.files import open_private

OpenFile: TypeAlias = Callable[[Path], AbstractContextManager[FileConnection]]
"""Opens a file for reading, for the time of a block, and raises errors as those of the service."""

_State: TypeAlias = Sequence[tuple[int, int, int] | None]

_MAPPED_FILES: Final = Path("/proc/self/maps")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def in_use(path: Path) -> Generator[FileConnection]:
    """Open the file of this deployment for reading, as its processes do; it may make files beside it.

    Raises:
        TryLaterError: it cannot be read now.
    """
    connection = connect(path, read_only=True)
    with closing(connection), translated():
        yield connection


@contextmanager
def untouched(path: Path) -> Generator[FileConnection]:
    """Open a file in any folder for reading, and change nothing in that folder.

    * With a `-wal` and a `-shm`, which a running or killed process leaves, both are read as they are. SQLite's locks
      tell a running process what is being read, so that neither disturbs the other.
    * Without a log, the file alone is read, as a file that does not change.
    * With a `-wal` alone, as in a copy, file and log are copied to the folder for temporary files, and read there.

    Raises:
        SettingsError: a process has the file open under another name, and its log cannot be found by this name.
        LedgerBusyError: at the end of the block, or for an error in it: a process changed the file meanwhile, in spite
            of SQLite's locks. What was read must not be relied on.
        LedgerUnavailableError: the file cannot be read, or there is no room for a copy.
    """
    held = hold(path, as_it_lies=True)
    try:
        with _untouched(held.path) as connection:
            yield connection
    finally:
        held.release()


@contextmanager
def _untouched(path: Path) -> Generator[FileConnection]:
    log, shared = _beside(path, "-wal"), _beside(path, "-shm")
    if log.exists() and shared.exists():
        with _unchanged([path, log]) as is_guarded, translated(), closing(_opened_shared(path)) as connection:
            is_guarded.extend(_mapped(shared.stat().st_ino))
            yield connection
    elif not (_has_content(log) or _has_content(_beside(path, "-journal"))):
        with _unchanged([path]), translated(), closing(opened(path, "mode=ro&immutable=1")) as connection:
            yield connection
    else:
        with _copied(path) as copy, translated(), closing(opened(copy, "mode=rw")) as connection:
            yield connection


def _opened_shared(path: Path) -> FileConnection:
    connection = opened(path, "mode=ro&readonly_shm=1")
    # If no process has initialised the shared memory, the first read makes an index of the log in this process.
    connection.execute("PRAGMA user_version").fetchone()
    return connection


@contextmanager
def _unchanged(files: Sequence[Path]) -> Generator[list[str]]:
    """Raise if a file changed within the block, unless the block put something into the list."""
    before = _state(files)
    guards: list[str] = []
    try:
        yield guards
    except Exception as error:
        if not guards and _state(files) != before:
            raise _changed(files[0]) from error
        raise
    if not guards and _state(files) != before:
        raise _changed(files[0])


@contextmanager
def _copied(path: Path) -> Generator[Path]:
    """Yield a copy of the file and its logs, in a folder of its own."""
    parts = [part for part in (path, _beside(path, "-wal"), _beside(path, "-journal")) if part.exists()]
    with tempfile.TemporaryDirectory(prefix="auditrace-read-") as folder:
        try:
            with _unchanged(parts):
                for part in parts:
                    with open(Path(folder) / part.name, "xb", opener=open_private):
                        pass
                    shutil.copyfile(part, Path(folder) / part.name)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise LedgerUnavailableError(f"{path} cannot be read: {error.strerror}") from error
            size = sum(part.stat().st_size for part in parts)
            raise LedgerUnavailableError(
                f"beside {path} lies a log of changes (-wal) that are not in it yet, so both are read from a copy, and "
                f"{folder} has no room for its {size} bytes: set TMPDIR to a folder that has"
            ) from error
        yield Path(folder) / path.name


def _mapped(inode: int) -> Sequence[str]:
    """Return the mappings by which this process shares memory through this file; none if the system does not tell.

    SQLite has one only as long as another process maintains the shared memory.
    Source: proc_pid_maps(5).
    """
    try:
        lines = _MAPPED_FILES.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return [line for line in lines if line.split()[4] == str(inode) and line.endswith("-shm")]


def _changed(path: Path) -> LedgerBusyError:
    return LedgerBusyError(f"{path} was changed by another process while it was read: try again")


def _state(files: Sequence[Path]) -> _State:
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
