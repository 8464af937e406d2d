"""What a run is started with, as a value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from service.jobs.model import Limits

MAX_ARTIFACT_BYTES: Final = 8 * 2**20


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    `environment` holds the plan's variables alone; the runner adds PATH (unless given), HOME, TMPDIR, the trace
    context and `AUDITRACE_*`. `inputs` are bytes by file name, placed in `in/`. `owner_descriptor` is inherited by
    the supervisor, never by the command. At `lease_until_ms` on the clock of `boot_ms` the run is killed, unless it
    was extended by then; None sets no such end.
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
    tracestate: str | None = None
    workdir_root: Path | None = None
    max_artifact_bytes: int = MAX_ARTIFACT_BYTES
    owner_descriptor: int | None = None
    lease_until_ms: int | None = None
