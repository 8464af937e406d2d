"""The embedded archive: OTLP JSON lines on local disk, in the format of the collector's file exporter.

A request is one line. The line and its line feed are written in one write, and synced before they count as delivered.
"""

import fcntl
import glob
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from telemetry.audit.otlp import otlp_json
from telemetry.delivery.answers import Accepted, Answer, Unreachable
from telemetry.errors import TelemetrySettingsError
from telemetry.files import (
    make_private_folder,
    open_regular,
    open_to_others,
    require_regular,
    sync_folder,
    why_no_file_in,
    why_unwritable,
)

START: Final = b'{"resourceLogs":'
"""The beginning of every line of an archive."""

DEFAULT_MAX_BYTES: Final = 100 * 1024 * 1024
_LOCK_TIMEOUT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.005
_CHUNK_BYTES: Final = 1 << 16


class ArchiveSink:
    """Implements `telemetry.delivery.answers.Sink` on a file; several processes may write it, one at a time.

    The folder holds archive files only, because the lock is on the folder itself. A line that a crash cut short is
    removed before the next line is written: its request was never acknowledged.
    """

    def __init__(self, path: Path, clock: Callable[[], int], max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open the archive, and repair its end.

        Args:
            path: the file that is written; a full file is renamed to `<stem>-<UTC time>.jsonl` in the same folder.
            clock: nanoseconds since the epoch, for the names of full files.
            max_bytes: a file is renamed before a line that would make it larger than this.

        Raises:
            TelemetrySettingsError: the file cannot be written, or is not an archive.
        """
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        try:
            make_private_folder(path.parent)
            with self._locked():
                _check(path)
                # No line is written. This repairs the end, and shows that the folder takes files.
                with self._opened():
                    pass
        except OSError as error:
            raise _unwritable(path, error.strerror or str(error)) from error

    @property
    def address(self) -> str:
        """The file."""
        return str(self._path)

    def send(self, request: bytes) -> Answer:
        """Append the request as one line; it is accepted when it is on disk."""
        line = otlp_json(request) + b"\n"
        try:
            with self._locked():
                self._append(line)
        except OSError as error:
            return Unreachable(type(error).__name__, f"it cannot be written: {error.strerror or error}")
        return Accepted()

    def close(self) -> None:
        """Do nothing: no file is open between two lines."""

    def _append(self, line: bytes) -> None:
        with self._opened() as descriptor:
            found = os.fstat(descriptor)
            size = found.st_size
            if size > 0 and size + len(line) <= self._max_bytes:
                _write(descriptor, line, size)
                return
        if size > 0:
            self._rotate()
        # Whoever was allowed to read the full file, such as a log shipper, may read the next one; none but the owner
        # may write it.
        with self._opened(0o600 | found.st_mode & 0o044) as descriptor:
            # The name of a new file must be on disk before its first line is acknowledged.
            sync_folder(self._path.parent)
            _write(descriptor, line, 0)

    def _rotate(self) -> None:
        now_ns = self._clock()
        while True:
            at = datetime.fromtimestamp(now_ns / 1e9, UTC)
            stamp = f"{at:%Y-%m-%dT%H-%M-%S}.{at.microsecond // 1000:03}"
            full = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
            if not full.exists():
                break
            now_ns += 1_000_000
        self._path.rename(full)
        sync_folder(self._path.parent)

    @contextmanager
    def _opened(self, mode: int = 0o600) -> Generator[int]:
        """Open the file for appending, and repair its end; a new one gets this mode whatever the umask."""
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchmod(descriptor, mode)
        try:
            require_regular(self._path, os.fstat(descriptor).st_mode)
            _mend(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Generator[None]:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder)
            yield
        finally:
            os.close(folder)


def examine_archive(path: Path) -> None:
    """Raise the error that opening an archive at this path would raise; nothing is created or changed.

    Raises:
        TelemetrySettingsError: the file could not be written, or is not an archive.
    """
    try:
        why = "it is a link, which a rotation would follow nowhere" if path.is_symlink() else None
        why = why or (why_unwritable(path) if path.exists() else None) or why_no_file_in(path.parent)
        why = why or open_to_others(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
    if why is not None:
        raise _unwritable(path, why)
    _check(path)


def archived_in(path: Path) -> Path | None:
    """Return a file of the archive at this path that is not empty, full files included; None when there is none.

    Raises:
        OSError: the archive cannot be read.
    """
    full = sorted(path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}"))
    return next((file for file in (path, *full) if file.exists() and file.stat().st_size), None)


def _unwritable(path: Path, why: str) -> TelemetrySettingsError:
    return TelemetrySettingsError(
        f"the archive {path} cannot be written: {why}; set AUDITRACE_AUDIT_ARCHIVE", is_unread=True
    )


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("another process is writing it") from None
            pause.wait(_LOCK_POLL_S)
        else:
            return


def _write(descriptor: int, line: bytes, size: int) -> None:
    try:
        written = 0
        while written < len(line):
            # A disk that is nearly full takes only a part of the line. The next write then raises the reason.
            written += os.write(descriptor, line[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _check(path: Path) -> None:
    """Raise when the file is not an archive, before anything in it is changed."""
    if not path.exists():
        return
    with os.fdopen(open_regular(path), "rb") as file:
        start = file.read(len(START) + 1).lstrip(b"\n")[: len(START)]
    if not START.startswith(start):
        raise TelemetrySettingsError(f"{path} is not an archive of OTLP JSON lines; set AUDITRACE_AUDIT_ARCHIVE")


def _mend(descriptor: int) -> None:
    """Remove an incomplete last line that a crash left, or add the line feed if only that is missing."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    kept = _last_line_feed(descriptor, size) + 1
    last = os.pread(descriptor, size - kept, kept)
    try:
        # A collector that wrote this file before may have appended a complete line to an incomplete one.
        msgspec.json.decode(last[max(0, last.rfind(START)) :])
    except (msgspec.DecodeError, UnicodeDecodeError):
        os.ftruncate(descriptor, kept)
    else:
        os.write(descriptor, b"\n")
    os.fsync(descriptor)


def _last_line_feed(descriptor: int, size: int) -> int:
    """Return the offset of the last line feed, -1 when there is none."""
    end = size
    while end > 0:
        begin = max(0, end - _CHUNK_BYTES)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found
        end = begin
    return -1
