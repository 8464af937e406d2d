"""Collects the files that a run left behind: regular files only, within limits.

No link is followed: a link in `out/` could name a file that only the worker may read, such as its own environment.
"""

import os
import stat
from collections.abc import Sequence
from typing import Final

import msgspec

from service.execution.excerpt import WINDOW_BYTES
from service.execution.folder import OUTPUTS, STREAMS

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
    def __init__(self, max_artifact_bytes: int, max_total_bytes: int) -> None:
        self._max_artifact_bytes = max_artifact_bytes
        self._left = max_total_bytes
        self.found_bytes = 0
        self.notes: list[str] = []

    def read(self, folder: int, name: str, shown: str) -> _Found | None:
        """Return a regular file, cut at the limits; None, with a note, for anything else."""
        try:
            # Check the type before opening: opening a device can have effects.
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                self.notes.append(f"{shown} is not a regular file and was left out")
                return None
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            self.notes.append(f"{shown} could not be read: {error.strerror}")
            return None
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            self.found_bytes += size
            allowed = min(self._max_artifact_bytes, self._left)
            payload = file.read(allowed)
            file.seek(max(0, size - WINDOW_BYTES))
            end = file.read(WINDOW_BYTES)
        self._left -= len(payload)
        if size > len(payload):
            self.notes.append(f"{shown} was cut from {size} to {len(payload)} bytes")
        return _Found(payload, end, size)

    def read_outputs(self, work: int) -> list[tuple[str, bytes]]:
        """Return the files directly in `out/`, sorted by name."""
        try:
            folder = os.open(OUTPUTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
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


def collect(folder: int, work: int, *, max_artifact_bytes: int, max_total_bytes: int) -> Collected:
    """Return the files that the run left, `stdout` and `stderr` first. No process of the run may be alive.

    Args:
        folder: descriptor of the run's folder, opened before the command started.
        work: descriptor of its working folder, also opened before the command started.
        max_artifact_bytes: limit for one artifact; the rest is cut.
        max_total_bytes: limit for all artifacts. Standard error takes its part first, then standard output, then the
            files by name.
    """
    collector = _Collector(max_artifact_bytes, max_total_bytes)
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
