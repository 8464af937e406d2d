"""The folder of a run: the names in it, and its removal whatever the run did to it.

It uses only the standard library, because the supervisor imports it.
"""

import contextlib
import itertools
import os
import stat
from pathlib import Path
from typing import Final

WORK: Final = "work"
"""The working folder of the command, in the run's folder. It holds `in/` and `out/`."""

INPUTS: Final = "in"
OUTPUTS: Final = "out"
STREAMS: Final = ("stdout", "stderr")
"""The files of the command's standard output and error, in the run's folder."""


_FOLDER: Final = os.O_DIRECTORY | os.O_CLOEXEC


def folder_handle(name: str, parent: int | None = None) -> int:
    """Return a descriptor that only names a folder, never what a link leads to; raise OSError if it is none."""
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | _FOLDER, dir_fd=parent)


def open_permitted(handle: int) -> tuple[int, int]:
    """Open the folder that a descriptor names, with all rights for its owner; return a descriptor and the mode before.

    Closes `handle`.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        path = Path(f"/proc/self/fd/{handle}")
        if os.geteuid() != 0 and mode & stat.S_IRWXU != stat.S_IRWXU:
            path.chmod(mode | stat.S_IRWXU)
        return os.open(path, os.O_RDONLY | _FOLDER), mode
    finally:
        os.close(handle)


def remove_folder(folder: Path) -> None:
    """Remove a run's folder with its content, however deep it is. No process of the run may be alive.

    No link is followed, and no file system that is mounted in it is entered. What cannot be removed stays.
    """
    removal = _Removal()
    with contextlib.suppress(OSError):
        removal.top, _ = open_permitted(folder_handle(str(folder)))
        try:
            removal.empty(removal.top)
            while removal.moved:
                removal.remove(removal.moved.pop())
        finally:
            os.close(removal.top)
        folder.rmdir()


class _Removal:
    """Moves every folder to the top before it looks into it.

    So no path is longer than a name, and two descriptors are enough for any depth. The kernel refuses to move a folder
    on which something is mounted, so that its content stays.
    """

    def __init__(self) -> None:
        self.top = -1
        self.moved: list[str] = []
        self._numbers = itertools.count()
        # The run has no such name.
        self._prefix = os.urandom(16).hex()

    def remove(self, name: str) -> None:
        """Remove a folder at the top."""
        with contextlib.suppress(OSError):
            folder, _ = open_permitted(folder_handle(name, self.top))
            try:
                self.empty(folder)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=self.top)

    def empty(self, folder: int) -> None:
        """Remove the files of a folder, and move its folders to the top."""
        with os.scandir(folder) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in names:
            with contextlib.suppress(OSError):
                if not is_folder:
                    os.unlink(name, dir_fd=folder)
                    continue
                # The kernel moves only folders that may be changed.
                os.close(open_permitted(folder_handle(name, folder))[0])
                moved = f"{self._prefix}{next(self._numbers)}"
                os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=self.top)
                self.moved.append(moved)
