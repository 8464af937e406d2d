"""The folder of a run: the names in it, and its removal whatever the run did to it.

It uses only the standard library, because the supervisor imports it.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

WORK: Final = "work"
"""The working folder of the command, in the run's folder. It holds `in/` and `out/`."""

INPUTS: Final = "in"
OUTPUTS: Final = "out"
STREAMS: Final = ("stdout", "stderr")
"""The files of the command's standard output and error, in the run's folder."""


def remove_folder(folder: Path) -> None:
    """Remove a run's folder with its content, without following links. No process of the run may be alive."""
    # Files in a folder without write permission could not be removed.
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
