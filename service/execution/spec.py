"""What a run is started with: as a value, and as the order to its supervisor; pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UnsetType

from service.execution.command import Order
from service.execution.folder import WORK
from service.jobs.model import (
    DEFAULT_FOLDER_BYTES,
    DEFAULT_FOLDER_FILES,
    DEFAULT_OPEN_FILES,
    DEFAULT_PROCESSES,
    Limits,
)

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    `environment` holds only the plan's variables. PATH (unless given), HOME, TMPDIR, the trace context and
    `AUDITRACE_*` are added. `inputs` are bytes by file name, written to `in/`. The supervisor inherits
    `owner_descriptor`, the command never does. The run is killed at `lease_until_ms` on the clock of `boot_ms` unless
    it is extended before; None sets no such end.
    """

    job_id: str
    run: int
    template: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    timeout_ms: int
    limits: Limits
    inputs: Mapping[str, bytes]
    traceparent: str
    tracestate: str | None
    workdir_root: Path | None
    max_artifact_bytes: int
    owner_descriptor: int | None
    lease_until_ms: int | None = None
    is_counted_alone: bool = False


def order_of(spec: RunSpec, folder: Path) -> Order:
    """Return the order that starts this run in `folder`."""
    work = str(folder / WORK)
    environment = {
        "PATH": DEFAULT_PATH,
        **spec.environment,
        "HOME": work,
        "TMPDIR": work,
        "TRACEPARENT": spec.traceparent,
        "AUDITRACE_JOB_ID": spec.job_id,
        "AUDITRACE_RUN": str(spec.run),
        "AUDITRACE_TEMPLATE": spec.template,
    }
    if spec.tracestate:
        environment["TRACESTATE"] = spec.tracestate
    return {
        "argv": list(spec.argv),
        "environment": environment,
        "folder": str(folder),
        "timeout_ms": spec.timeout_ms,
        "memory_bytes": spec.limits.memory_bytes,
        "cpu_seconds": spec.limits.cpu_seconds,
        "output_bytes": spec.limits.output_bytes,
        "lease_until_ms": spec.lease_until_ms,
        "is_counted_alone": spec.is_counted_alone,
        "processes": _or_default(spec.limits.processes, DEFAULT_PROCESSES),
        "open_files": _or_default(spec.limits.open_files, DEFAULT_OPEN_FILES),
        "folder_bytes": _or_default(spec.limits.folder_bytes, DEFAULT_FOLDER_BYTES),
        "folder_files": _or_default(spec.limits.folder_files, DEFAULT_FOLDER_FILES),
    }


def _or_default(stated: int | UnsetType, default: int) -> int:
    """Return a limit that the plan of an older version may lack."""
    return stated if isinstance(stated, int) else default
