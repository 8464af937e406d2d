"""Collects the files that a run left behind: regular files of the run with one name, within limits.

No link is followed: a link in `out/` could name a file that only the worker may read, such as its own environment. A
file with a second name is left out, because that name can be another user's, or a file of the service.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Final

import msgspec

from service.execution.excerpt import WINDOW_BYTES
from service.execution.folder import OUTPUTS, STREAMS, folder_handle, open_permitted

MAX_FILES: Final = 64
MAX_NAME_BYTES: Final = 200
NOTES: Final = "notes"
"""Name of the artifact that says what was cut or left out. It is missing when nothing was."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """Artifacts as pairs of name and bytes; `found_bytes` is the size of all files before anything was cut.

    `stdout_bytes` and `stderr_bytes` are the sizes of the two streams before they were cut.

    `stderr_end` holds the last `WINDOW_BYTES` of standard error, also when the artifact was cut.
    """

    artifacts: Sequence[tuple[str, bytes]]
    found_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    notes: tuple[str, ...]
    stderr_end: bytes


class _Found(msgspec.Struct, frozen=True):
    payload: bytes
    end: bytes
    size: int


class _Collector:
    def __init__(self, owner: int, max_artifact_bytes: int, max_total_bytes: int) -> None:
        self._owner = owner
        self._max_artifact_bytes = max_artifact_bytes
        self._left = max_total_bytes
        self.found_bytes = 0
        self.notes: list[str] = []

    def read(self, folder: int, name: str, shown: str) -> _Found | None:
        """Return a file of the run, cut at the limits; None, with a note, for anything else."""
        try:
            descriptor = self._open(folder, name, shown)
        except OSError as error:
            self.notes.append(f"{shown} could not be read: {error.strerror}")
            return None
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            allowed = min(self._max_artifact_bytes, self._left)
            payload = file.read(allowed)
            # It may have grown meanwhile.
            size = max(size, len(payload))
            file.seek(max(0, size - WINDOW_BYTES))
            end = file.read(WINDOW_BYTES)
        self.found_bytes += size
        self._left -= len(payload)
        if size > len(payload):
            self.notes.append(f"{shown} was cut from {size} to {len(payload)} bytes")
        return _Found(payload, end, size)

    def _open(self, folder: int, name: str, shown: str) -> int | None:
        """Open a file of the run; None, with a note, for anything else. Devices and pipes are never opened."""
        # This descriptor cannot be read. What it names is checked, and then this file is opened, whatever has its name.
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                self.notes.append(f"{shown} is not a regular file and was left out")
            elif found.st_nlink != 1:
                self.notes.append(f"{shown} has {found.st_nlink} names (hard links) and was left out")
            elif found.st_uid != self._owner:
                self.notes.append(f"{shown} belongs to another user and was left out")
            else:
                return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return None
        finally:
            os.close(handle)

    def read_outputs(self, work: int) -> list[tuple[str, bytes]]:
        """Return the files directly in `out/`, sorted by name."""
        try:
            folder, _ = open_permitted(folder_handle(OUTPUTS, work))
        except OSError as error:
            self.notes.append(f"{OUTPUTS}/ could not be read: {error.strerror}")
            return []
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
            if len(names) > MAX_FILES:
                self.notes.append(f"{len(names) - MAX_FILES} of the {len(names)} files in {OUTPUTS}/ were left out")
            read: list[tuple[str, bytes]] = []
            for name in names[:MAX_FILES]:
                shown = f"{OUTPUTS}/{name}"
                if not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
                    self.notes.append(f"{shown!a} was left out for its name")
                elif (found := self.read(folder, name, shown)) is not None:
                    read.append((shown, found.payload))
            return read
        finally:
            os.close(folder)


def collect(folder: int, work: int, *, owner: int, max_artifact_bytes: int, max_total_bytes: int) -> Collected:
    """Return the files that the run left, `stdout` and `stderr` first. No process of the run may be alive.

    Args:
        folder: descriptor of the run's folder, opened before the command started.
        work: descriptor of its working folder, also opened before the command started.
        owner: the user of the run; files of others are left out.
        max_artifact_bytes: limit for one artifact; the rest is cut.
        max_total_bytes: limit for all artifacts. Standard error takes its part first, then standard output, then the
            files by name.
    """
    for descriptor in (folder, work):
        # The run may have taken away the right to search them.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IRWXU)
    collector = _Collector(owner, max_artifact_bytes, max_total_bytes)
    streams = {name: collector.read(folder, name, name) or _Found(b"", b"", 0) for name in reversed(STREAMS)}
    artifacts = [(name, streams[name].payload) for name in STREAMS]
    artifacts += collector.read_outputs(work)
    if collector.notes:
        artifacts.append((NOTES, "".join(f"{note}\n" for note in collector.notes).encode()))
    return Collected(
        artifacts=tuple(artifacts),
        found_bytes=collector.found_bytes,
        stdout_bytes=streams[STREAMS[0]].size,
        stderr_bytes=streams[STREAMS[1]].size,
        notes=tuple(collector.notes),
        stderr_end=streams[STREAMS[1]].end,
    )
