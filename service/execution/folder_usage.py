"""Counts what the working folder of a run holds, a little at a time, and says when it is too much.

It uses only the standard library, because the supervisor imports it. Bytes are those that the file system has
allocated: a hole takes nothing, and a file with several names takes its bytes once. Each name counts as a file. Files
that were deleted and are still open in a process count too. No link is followed, and no other file system is entered.

Not counted: a deleted file that is only mapped, in a message between processes, or open in a thread with descriptors of
its own, or in a process that hides them from its own user (`PR_SET_DUMPABLE`). The limit of the size of a file applies
to it.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from service.execution.folder import OUTPUTS, folder_handle, open_permitted

MAX_DEPTH: Final = 128
"""How many folders may lie in each other. No program needs as many; each level costs two descriptors."""
_BLOCK_BYTES: Final = 512
_DELETED: Final = " (deleted)"


class FolderUsage:
    """One count of a folder. It is exact while the run stands still; what the run moves can count twice, or not."""

    def __init__(self, work: int, pids: Sequence[int], *, max_bytes: int, max_files: int, max_output: int) -> None:
        """Begin a count.

        Args:
            work: descriptor of the working folder, which stays the caller's.
            pids: the processes of the run, whose deleted files count.
            max_bytes: the limit of allocated bytes.
            max_files: the limit of files and folders.
            max_output: the limit of the sizes of the files directly in `out/`.
        """
        self._limits = {"folder_bytes": max_bytes, "folder_files": max_files, "output_limit": max_output}
        self._counted = dict.fromkeys(self._limits, 0)
        self._device = os.fstat(work).st_dev
        self._known: set[int] = set()
        self._is_too_deep = False
        self._steps = self._count(work, pids)

    @property
    def exceeded(self) -> str | None:
        """The limit that is exceeded: `folder_bytes`, `folder_files`, `folder_depth` or `output_limit`."""
        if self._is_too_deep:
            return "folder_depth"
        return next((name for name, limit in self._limits.items() if self._counted[name] > limit), None)

    def advance(self, seconds: float = float("inf")) -> bool:
        """Go on for about `seconds`, until a limit is exceeded, or to the end; return whether the count has ended."""
        until = time.monotonic() + seconds
        for _ in self._steps:
            if self.exceeded:
                self.close()
                return True
            if time.monotonic() >= until:
                return False
        return True

    def close(self) -> None:
        """Give up the count; folders get back the rights that they had."""
        self._steps.close()

    def _count(self, work: int, pids: Sequence[int]) -> Generator[None]:
        """Count one file, folder or descriptor at each step."""
        yield from self._count_folder(work)
        root = f"{Path(f'/proc/self/fd/{work}').readlink()}/"
        for pid in pids:
            with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    yield
                    # The process, or its descriptor, can be gone.
                    with contextlib.suppress(OSError):
                        self._add_deleted(descriptor, root)

    def _count_folder(self, work: int) -> Generator[None]:
        opened = [_OpenFolder(os.dup(work), is_output=False)]
        try:
            while opened:
                entry = opened[-1].next_entry()
                if entry is None:
                    opened.pop().close()
                    continue
                try:
                    self._add_entry(entry, opened)
                except OSError as error:
                    # Else the run removed it meanwhile, or put something else in its place.
                    if error.errno in (errno.EMFILE, errno.ENFILE):
                        raise
                yield
        finally:
            for folder in reversed(opened):
                folder.close()

    def _add_entry(self, entry: os.DirEntry[str], opened: "list[_OpenFolder]") -> None:
        found = entry.stat(follow_symlinks=False)
        self._add(found)
        if opened[-1].is_output and stat.S_ISREG(found.st_mode):
            self._counted["output_limit"] += found.st_size
        if stat.S_ISDIR(found.st_mode) and found.st_dev == self._device:
            self._is_too_deep = self._is_too_deep or len(opened) > MAX_DEPTH
            is_output = len(opened) == 1 and entry.name == OUTPUTS
            opened.append(_OpenFolder(folder_handle(entry.name, opened[-1].descriptor), is_output=is_output))

    def _add_deleted(self, descriptor: os.DirEntry[str], root: str) -> None:
        try:
            path = str(Path(descriptor.path).readlink())
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            path = root + _DELETED
        if path.startswith(root) and path.endswith(_DELETED):
            found = descriptor.stat()
            if found.st_nlink == 0 and found.st_ino not in self._known:
                self._known.add(found.st_ino)
                self._add(found)

    def _add(self, found: os.stat_result) -> None:
        self._counted["folder_files"] += 1
        if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1:
            if found.st_ino in self._known:
                return
            self._known.add(found.st_ino)
        self._counted["folder_bytes"] += found.st_blocks * _BLOCK_BYTES


class _OpenFolder:
    """A folder that is read. If its owner may not read it, the owner has the right until it is closed."""

    def __init__(self, handle: int, *, is_output: bool) -> None:
        """Open the folder that a descriptor names, and close that one; raise OSError if it cannot be read."""
        self.is_output = is_output
        self.descriptor, self._mode = open_permitted(handle)
        self._entries: Iterator[os.DirEntry[str]] = os.scandir(self.descriptor)

    def next_entry(self) -> os.DirEntry[str] | None:
        """Return the next entry; None behind the last one."""
        try:
            return next(self._entries, None)
        except OSError:
            # The run removed the folder.
            return None

    def close(self) -> None:
        """Close the folder, and take back the right."""
        with contextlib.suppress(OSError):
            if stat.S_IMODE(os.fstat(self.descriptor).st_mode) == self._mode | stat.S_IRWXU != self._mode:
                os.fchmod(self.descriptor, self._mode)
        os.close(self.descriptor)
