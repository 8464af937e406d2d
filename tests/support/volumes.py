"""File systems of a test's own: small ones, so that a disk can be full, and views that cannot be written."""

import os
import subprocess
from collections.abc import Generator, Sequence
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
    with _mounted(folder, [mount], "NO SMALL VOLUME: full disks are not tested"):
        yield folder


@contextmanager
def read_only(folder: Path, view: Path) -> Generator[Path]:
    """Mount `folder` on `view` for the time of the block, where nobody, root included, can write to it.

    Needs root; without it the test is skipped, or fails where `CI` is set.
    """
    view.mkdir(parents=True, exist_ok=True)
    bind = ["mount", "--bind", str(folder), str(view)]
    protect = ["mount", "-o", "remount,ro,bind", str(view)]
    with _mounted(view, [bind, protect], "NO READ-ONLY VOLUME: evidence on such media is not tested"):
        yield view


@contextmanager
def _mounted(folder: Path, mounts: Sequence[Sequence[str]], otherwise: str) -> Generator[None]:
    for number, mount in enumerate(mounts):
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if number:
                subprocess.run(["umount", "-l", str(folder)], check=True)
            reason = f"{otherwise}, because mount failed: {done.stderr.strip()}"
            if os.environ.get("CI"):  # noqa: TID251 - of the test run
                pytest.fail(reason)
            pytest.skip(reason)
    try:
        yield
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
