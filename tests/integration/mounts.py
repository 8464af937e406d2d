"""Mounts that one process sees and nobody else: they are gone with its namespace, however the test ends."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

_BIND_AND_BECOME: Final = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def with_bind_mount(source: Path, target: Path, command: Sequence[str]) -> Sequence[str]:
    """Return the command that runs another one, as the same process, where `source` is mounted on `target` too.

    Needs root; without it the test is skipped, or fails where `CI` is set.
    """
    bound = ["unshare", "--mount", "sh", "-c", _BIND_AND_BECOME, "sh", str(source), str(target)]
    done = subprocess.run([*bound, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = f"NO BIND MOUNT: databases behind one are not tested: {done.stderr.strip()}"
        if os.environ.get("CI"):  # noqa: TID251 - of the test run
            pytest.fail(reason)
        pytest.skip(reason)
    return [*bound, *command]
