"""The types of a job: its states, plan, runs, inputs and artifacts, as values without behaviour."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, NewType, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from telemetry.audit.record import Actor

JobId = NewType("JobId", str)
TenantId = NewType("TenantId", str)
DEFAULT_TENANT: Final = TenantId("default")
"""The tenant of a credential that names none."""
ParameterValue: TypeAlias = str | int | bool


class Status(StrEnum):
    """The states of a job; design: docs/architecture.md, "States of a job"."""

    CREATED = "created"
    DRAFT_READY = "draft_ready"
    CONFIRMED = "confirmed"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def is_final(self) -> bool:
        """True when no worker changes the job unless a client retries it."""
        return self in {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.REJECTED}


class RunStatus(StrEnum):
    """The states of a run; `unknown` when its worker died, `released` when its worker gave it back at shutdown."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    UNKNOWN = "unknown"


DEFAULT_PROCESSES: Final = 512
DEFAULT_OPEN_FILES: Final = 1024
DEFAULT_FOLDER_BYTES: Final = 2**30
DEFAULT_FOLDER_FILES: Final = 50_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a run.

    Plans of version 0.1.0 lack the last four. A run of such a plan has the defaults, which its hash does not cover.
    """

    memory_bytes: Annotated[int, Meta(description="Memory, in bytes.")]
    cpu_seconds: Annotated[int, Meta(description="Time of a processor, in seconds.")]
    output_bytes: Annotated[int, Meta(description="Standard output, standard error and files together, in bytes.")]
    processes: Annotated[int | UnsetType, Meta(description="Processes and threads at one time.")] = UNSET
    open_files: Annotated[int | UnsetType, Meta(description="Open files of one process.")] = UNSET
    folder_bytes: Annotated[
        int | UnsetType, Meta(description="What the working folder takes on disk, inputs included, in bytes.")
    ] = UNSET
    folder_files: Annotated[
        int | UnsetType, Meta(description="Files and folders in the working folder, inputs included.")
    ] = UNSET


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly what a run executes; sensitive parameters are masked as `hmac-sha256:<hex>`.

    The plan holds everything that a worker needs, except the sensitive values and the bytes of inputs. So a run
    executes what was confirmed, even when the template has changed since. A member with a default is left out where
    it has that, so that the text and the hash of a plan that lacks it stay the same.
    """

    argv: Annotated[tuple[str, ...], Meta(description="The exact argument list.")]
    environment: Annotated[Mapping[str, str], Meta(description="The variables that are set.")]
    pass_environment: Annotated[
        tuple[str, ...], Meta(description="The names of variables that are let through from the worker.")
    ]
    timeout_ms: Annotated[int, Meta(description="After how many milliseconds a run is stopped.")]
    max_attempts: Annotated[int, Meta(description="How many runs there are at most.")]
    retry_exit_codes: Annotated[
        tuple[int, ...] | None, Meta(description="The exit codes after which another run follows; null for all but 0.")
    ]
    limits: Annotated[Limits, Meta(description="What a run may use.")]
    inputs: Annotated[Mapping[str, str], Meta(description="SHA-256 of each input, by name.")]
    sha256: Annotated[
        str,
        Meta(
            description="SHA-256 of the RFC 8785 text of the other members.",
            extra_json_schema={"pattern": "^[0-9a-f]{64}$"},
        ),
    ]
    network: Annotated[bool, Meta(description="Whether a run has the network of the worker.")] = False
    reads: Annotated[tuple[str, ...], Meta(description="The folders of the worker that a run may read.")] = ()
    writes: Annotated[tuple[str, ...], Meta(description="The folders of the worker that a run may change.")] = ()


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """The confirmation of a plan: who gave it, when, what they wrote, and the record of it."""

    by: Actor
    at_ns: int
    notes: str | None
    plan_sha256: str
    record_id: str


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """The rejection of a plan: who rejected it, when, why, and the record of it."""

    by: Actor
    at_ns: int
    reason: str
    plan_sha256: str
    record_id: str


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request for the next run: who made it, and the span that the run continues."""

    initiator: Actor
    record_id: str
    request_id: str | None
    traceparent: str
    tracestate: str | None
    linked_traceparent: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a job.

    `confirmed_by` is the id of the actor of `confirmation`. Only it is there where version 0.1.0 confirmed the job, or
    changed it afterwards.
    """

    job_id: JobId
    tenant_id: TenantId
    template: str
    parameters: Mapping[str, ParameterValue]
    status: Status
    version: int
    created_by: str
    created_by_issuer: str | None = None
    """None where an older version made the job."""
    created_by_person: str | None = None
    """Whose key or token it was; None if not known."""
    created_ns: int
    updated_ns: int
    trace_id: str
    plan: Plan | None = None
    confirmed_by: str | None = None
    confirmation: Confirmation | None = None
    rejection: Rejection | None = None
    run: int = 0
    attempts_left: int = 0
    not_before_ns: int = 0
    request: RunRequest | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run a job. `traceparent` names the span of the run. The store keeps the lease separately.

    `stderr_end` is the end of its standard error with sensitive values masked; None when it succeeded or is not known.
    """

    job_id: JobId
    number: int
    status: RunStatus
    worker_id: str
    traceparent: str
    started_ns: int
    ended_ns: int | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    error_type: str | None = None
    stderr_end: str | None = None


class Content(msgspec.Struct, frozen=True):
    """Name, size in bytes and SHA-256 of an input or artifact, without its bytes."""

    name: str
    size: int
    sha256: str
