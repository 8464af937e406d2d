"""Writing: the ledger in which changes and records are committed together, and what a transaction writes."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias, TypeVar

import msgspec

from service.jobs.model import Content, Job, JobId, Run, TenantId
from telemetry.audit.ledger import OpenLedger
from telemetry.audit.record import AuditRecord, Receipt

T = TypeVar("T")

Clock: TypeAlias = Callable[[], int]
"""Returns nanoseconds since the epoch."""

NewId: TypeAlias = Callable[[], str]
"""Returns a new UUIDv7."""


# What a transition writes beside the job and its record, in the same transaction.


class PutInput(msgspec.Struct, frozen=True, tag=True):
    """Store or replace an input of the job."""

    content: Content
    payload: bytes


class PutArtifact(msgspec.Struct, frozen=True, tag=True):
    """Store a file that a run left behind."""

    run: Run
    content: Content
    payload: bytes


class PutSecrets(msgspec.Struct, frozen=True, tag=True):
    """Store the encrypted values of the job's sensitive parameters."""

    ciphertexts: Mapping[str, bytes]


class StartRun(msgspec.Struct, frozen=True, tag=True):
    """Insert the run that a claim begins, with its lease."""

    run: Run
    lease_until_ns: int


class EndRun(msgspec.Struct, frozen=True, tag=True):
    """Close a run and drop its lease."""

    run: Run


class PutKey(msgspec.Struct, frozen=True, tag=True):
    """Store a new API key; only the hash of its secret."""

    key: "ApiKey"


class RevokeKey(msgspec.Struct, frozen=True, tag=True):
    """Revoke an API key; its name stays taken."""

    key_id: str
    revoked_ns: int


class Remember(msgspec.Struct, frozen=True, tag=True):
    """Remember the idempotency key of a request, with what it made."""

    entry: "IdempotencyEntry"


Write: TypeAlias = PutInput | PutArtifact | PutSecrets | StartRun | EndRun | PutKey | RevokeKey | Remember


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One fact and the change it describes. A refused attempt is a transition too, with `job` None."""

    record: AuditRecord
    job: Job | None = None
    writes: tuple[Write, ...] = ()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as stored: `name` is the actor id, unique in its tenant and never reused."""

    key_id: str
    name: str
    tenant_id: TenantId
    roles: tuple[str, ...]
    secret_sha256: str
    created_ns: int
    revoked_ns: int | None = None
    expires_ns: int | None = None


class IdempotencyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was carried out: the same key with the same body is answered without doing it again."""

    tenant_id: TenantId
    actor_id: str
    route: str
    key_sha256: str
    body_sha256: str
    job_id: JobId
    expires_ns: int


class Transaction(OpenLedger, Protocol):
    """The open transaction of a lane. `save` is its one writing method for jobs and records."""

    def save(self, transition: Transition) -> Receipt:
        """Write the changed job and seal its record; both are committed, or neither.

        Raises:
            ConflictError: the job was changed by another transaction since it was read.
        """
        ...

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the job as this transaction sees it; None if there is none in that tenant (None: any tenant)."""
        ...

    def run(self, job_id: str, number: int) -> Run | None:
        """Return one run of a job."""
        ...

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the job's inputs, ordered by name."""
        ...

    def next_runnable(self, now_ns: int) -> Job | None:
        """Return the queued job whose turn it is, tenants taking turns; None when none is due."""
        ...

    def expired_run(self, now_ns: int) -> Run | None:
        """Return a running run whose lease has ended; None when there is none."""
        ...

    def renew_lease(self, job_id: str, run: int, worker_id: str, until_ns: int) -> bool:
        """Extend the lease; False when this worker does not hold it any more (reclaimed, cancelled or ended)."""
        ...

    def remembered(self, tenant_id: TenantId, actor_id: str, route: str, key_sha256: str) -> IdempotencyEntry | None:
        """Return what was done under this idempotency key, if it has not expired."""
        ...

    def key_named(self, tenant_id: TenantId, name: str) -> ApiKey | None:
        """Return the key of this name, revoked ones included."""
        ...

    def note_use(self, key_id: str, used_ns: int) -> None:
        """Note that an API key was used; a later use that was noted stands. Beside records, and none itself."""
        ...


Work: TypeAlias = Callable[[Transaction], T]
"""Runs inside a lane's transaction. It may run more than once, so it has no effect outside the transaction."""


class Ledger(Protocol):
    """Where changes and records are committed together."""

    def submit(self, work: Work[T]) -> Future[T]:
        """Hand work to a lane; the future is resolved after the commit, never before.

        Raises (from the future):
            TryLaterError: nothing was committed.
            BrokenLedgerError: nothing was committed, and the ledger needs a person.
            Exception: what `work` raised; its changes were rolled back.
        """
        ...
