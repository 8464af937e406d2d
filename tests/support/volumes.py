"""Small file systems of a test's own, so that a disk can be full without filling anybody else's."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_volume(folder: Path, size_bytes: int) -> Generator[Path]:
    """Mount an empty file system of this size on `folder` for the time of the block.

    Needs root; without it the test is skipped, or fails where `CI` is set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = f"NO SMALL VOLUME: full disks are not tested, because mount failed: {done.stderr.strip()}"
        if os.environ.get("CI"):  # noqa: TID251 - of the test run
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield folder
    finally:
        # Lazily, because a process that a failed test left behind may still hold a file.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all space that is left, and return the file that holds it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 1:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return ballast
