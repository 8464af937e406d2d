"""Starting real runs in tests, and finding the processes that belong to them."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path

from service.execution.isolation import Confinement, Isolation
from service.execution.spec import RunSpec
from service.jobs.model import Limits

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_IS_ROOT = os.geteuid() == 0
CONFINEMENT: Mapping[str, Confinement] = {
    "off": Confinement(),
    "none": Confinement(is_guarded=True),
    "uid": Confinement(isolation=Isolation.UID, is_guarded=True, has_other_user=True),
    "bubblewrap": Confinement(
        isolation=Isolation.BUBBLEWRAP, is_guarded=True, bwrap=shutil.which("bwrap"), has_other_user=_IS_ROOT
    ),
}
"""The isolations under which runs are tested, by name."""
ISOLATIONS = tuple(name for name in CONFINEMENT if _IS_ROOT or name != "uid")
confinement: ContextVar[str] = ContextVar("confinement", default="off")


def run_spec(
    root: Path,
    *argv: str,
    environment: Mapping[str, str] | None = None,
    inputs: Mapping[str, bytes] | None = None,
    timeout_ms: int = 60_000,
    memory_bytes: int = 256 * 2**20,
    cpu_seconds: int = 30,
    output_bytes: int = 2**20,
    max_artifact_bytes: int = 2**20,
    owner_descriptor: int | None = None,
    lease_until_ms: int | None = None,
    network: bool = False,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
) -> RunSpec:
    """Return a run of `argv` under `root`, with limits that no well-behaved command meets, as `confinement` says."""
    return RunSpec(
        job_id="job-1",
        run=2,
        template="test",
        argv=argv,
        environment=environment or {},
        timeout_ms=timeout_ms,
        limits=Limits(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, output_bytes=output_bytes),
        inputs=inputs or {},
        traceparent=TRACEPARENT,
        tracestate="vendor=1",
        workdir_root=root,
        max_artifact_bytes=max_artifact_bytes,
        owner_descriptor=owner_descriptor,
        lease_until_ms=lease_until_ms,
        confinement=CONFINEMENT[confinement.get()],
        network=network,
        reads=reads,
        writes=writes,
    )


def alive(marker: str) -> list[int]:
    """Return the live processes with `marker` in their command line: forks inherit it, supervisors never see it."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            is_marked = marker.encode() in (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if is_marked and state != "Z":
            found.append(int(folder.name))
    return found


def open_to_all(folder: Path) -> None:
    """Let every user pass through the folders of a test: pytest makes them for its own user only."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and len(each.parts) > 2:
            each.chmod(each.stat().st_mode | 0o011)
