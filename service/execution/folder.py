"""The folder of a run: where its files lie, and how it is removed whatever the run did to it.

Standard library alone: the supervisor imports it.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

WORK: Final = "work"
"""Beneath the run's folder: the working folder of the command, with `in/` and `out/`."""

INPUTS: Final = "in"
OUTPUTS: Final = "out"
STREAMS: Final = ("stdout", "stderr")
"""Beside the working folder: what the command writes to its standard output and error."""


def remove_folder(folder: Path) -> None:
    """Remove a run's folder with all in it, without following links; no process of the run may be left."""
    # A folder without write permission would keep what lies in it.
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
