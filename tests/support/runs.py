"""Starting real runs in tests, and finding the processes that belong to them."""

from collections.abc import Mapping
from pathlib import Path

from service.execution.spec import RunSpec
from service.jobs.model import Limits

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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
) -> RunSpec:
    """Return a run of `argv` under `root`, with limits that no well-behaved command meets."""
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
