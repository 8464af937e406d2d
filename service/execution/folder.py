"""The folder of a run: the names in it, and its removal whatever the run did to it.

It uses only the standard library, because the supervisor imports it.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

WORK: Final = "work"
"""The working folder of the command, in the run's folder. It holds `in/` and `out/`."""

INPUTS: Final = "in"
OUTPUTS: Final = "out"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
STREAMS: Final = ("stdout", "stderr")
"""The files of the command's standard output and error, in the run's folder."""


def remove_folder(folder: Path) -> None:
    """Remove a run's folder with its content, however deep, without following links.

    No process of the run may be alive. What cannot be removed stays.
    """
    with contextlib.suppress(OSError):
        parent = os.open(folder.parent, _FOLDER)
        try:
            _remove_within(parent, folder.name)
        finally:
            os.close(parent)


def _remove_within(parent: int, name: str) -> None:
    """Remove the folder `name` of an open folder, with one descriptor and no recursion: a run can nest thousands."""
    at = os.dup(parent)
    # For each folder on the way down: its name, and the folders in it that are left.
    way: list[tuple[str, list[str]]] = []
    left = [name]
    try:
        while way or left:
            if left:
                inner = left.pop()
                with contextlib.suppress(OSError):
                    # A folder without permissions could neither be opened nor emptied.
                    if stat.S_ISDIR(os.stat(inner, dir_fd=at, follow_symlinks=False).st_mode):
                        os.chmod(inner, 0o700, dir_fd=at)
                    at = _moved(at, inner)
                    way.append((inner, left))
                    left = []
                    left = _emptied(at)
            else:
                inner, left = way.pop()
                at = _moved(at, "..")
                with contextlib.suppress(OSError):
                    os.rmdir(inner, dir_fd=at)
    finally:
        os.close(at)


def _emptied(folder: int) -> list[str]:
    """Remove files and empty folders; return the names of the other folders."""
    kept: list[str] = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        try:
            if is_folder:
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        except OSError:
            if is_folder:
                kept.append(name)
    return kept


def _moved(at: int, name: str) -> int:
    """Open a folder next to `at`, and close `at`."""
    there = os.open(name, _FOLDER, dir_fd=at)
    os.close(at)
    return there
