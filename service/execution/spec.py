"""What a run is started with: as a value, and as the order to its supervisor."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict

import msgspec
from msgspec import UnsetType

from service.execution.bubblewrap import sandbox_arguments
from service.execution.command import Order
from service.execution.folder import WORK
from service.execution.isolation import Confinement
from service.jobs.model import (
    DEFAULT_FOLDER_BYTES,
    DEFAULT_FOLDER_FILES,
    DEFAULT_OPEN_FILES,
    DEFAULT_PROCESSES,
    Limits,
)

_FOR_THE_INTERPRETER: Final = frozenset({"LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "TZDIR"})
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    `environment` holds only the plan's variables. PATH (unless given), HOME, TMPDIR, the trace context and
    `AUDITRACE_*` are added. `inputs` are bytes by file name, written to `in/`. The supervisor inherits
    `owner_descriptor`, the command never does. The run is killed at `lease_until_ms` on the clock of `boot_ms` unless
    it is extended before; None sets no such end. `reads` and `writes` are folders of the host. The supervisor gets
    `supervisor_environment`, or the worker's if it is None.
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
    confinement: Confinement = Confinement()
    network: bool = False
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    supervisor_environment: Mapping[str, str] | None = None

    @property
    def root(self) -> Path:
        """The folder in which the runs of this user have theirs."""
        return self.workdir_root or Path(tempfile.gettempdir(), f"auditrace-{os.geteuid()}")


def supervisor_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what an interpreter may need to find its libraries, and nothing else: a variable may hold a secret."""
    return {name: value for name, value in environment.items() if name in _FOR_THE_INTERPRETER}


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
        "processes": _or_default(spec.limits.processes, DEFAULT_PROCESSES),
        "open_files": _or_default(spec.limits.open_files, DEFAULT_OPEN_FILES),
        "folder_bytes": _or_default(spec.limits.folder_bytes, DEFAULT_FOLDER_BYTES),
        "folder_files": _or_default(spec.limits.folder_files, DEFAULT_FOLDER_FILES),
        **_isolation(spec, folder / WORK),
    }


class _IsolationOrder(TypedDict):
    bwrap: str | None
    sandbox: list[str]
    has_other_user: bool
    is_guarded: bool
    is_counted_alone: bool


def _isolation(spec: RunSpec, work: Path) -> _IsolationOrder:
    confinement = spec.confinement
    # The rights of another user would not reach the folders of the host that the plan names.
    has_other_user = confinement.has_other_user and not (spec.reads or spec.writes)
    arguments: list[str] = []
    if confinement.bwrap is not None:
        arguments = sandbox_arguments(
            work,
            spec.argv[0],
            is_root=os.geteuid() == 0,
            network=spec.network,
            memory_bytes=spec.limits.memory_bytes,
            reads=spec.reads,
            writes=spec.writes,
            hidden=[*confinement.hidden, spec.root],
        )
    return {
        "bwrap": confinement.bwrap,
        "sandbox": arguments,
        "has_other_user": has_other_user,
        "is_guarded": confinement.is_guarded,
        # In a user namespace of its own (Linux 5.14), or as a user that nobody else is.
        "is_counted_alone": has_other_user or (confinement.bwrap is not None and os.geteuid() != 0),
    }


def _or_default(stated: int | UnsetType, default: int) -> int:
    """Return a limit that the plan of an older version may lack."""
    return stated if isinstance(stated, int) else default
