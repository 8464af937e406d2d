"""Writing: the ledger, in which changes and records are committed together, and the parts of a transaction."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias, TypeVar

import msgspec

from service.jobs.model import Content, Job, Run, TenantId
from service.ports.configuring import StoredConfiguration
from service.ports.keys import ApiKey
from telemetry.audit.ledger import OpenLedger
from telemetry.audit.record import AuditRecord, Receipt

T = TypeVar("T")

Clock: TypeAlias = Callable[[], int]
"""Returns nanoseconds since the epoch."""

NewId: TypeAlias = Callable[[], str]
"""Returns a new UUIDv7."""


# The rows that a transition writes in addition to the job and its record, in the same transaction.


class PutInput(msgspec.Struct, frozen=True, tag=True):
    """Store or replace an input of the job."""

    content: Content
    payload: bytes


class PutArtifact(msgspec.Struct, frozen=True, tag=True):
    """Store an artifact of a run."""

    run: Run
    content: Content
    payload: bytes


class PutSecrets(msgspec.Struct, frozen=True, tag=True):
    """Store the encrypted values of the job's sensitive parameters."""

    ciphertexts: Mapping[str, bytes]


class StartRun(msgspec.Struct, frozen=True, tag=True):
    """Insert the run that begins with a claim, with its lease."""

    run: Run
    lease_until_ns: int


class EndRun(msgspec.Struct, frozen=True, tag=True):
    """Close a run and delete its lease."""

    run: Run


class PutKey(msgspec.Struct, frozen=True, tag=True):
    """Store a new API key, with the hash of its secret only."""

    key: ApiKey


class PutKeySecret(msgspec.Struct, frozen=True, tag=True):
    """Store the present secret of an API key, as its hash, behind the one before."""

    key: ApiKey


class RevokeKey(msgspec.Struct, frozen=True, tag=True):
    """Revoke an API key; its name stays taken."""

    key_id: str
    revoked_ns: int


class PutIdempotencyEntry(msgspec.Struct, frozen=True, tag=True):
    """Store the idempotency key of a request, with its job."""

    entry: "IdempotencyEntry"


Write: TypeAlias = (
    PutInput | PutArtifact | PutSecrets | StartRun | EndRun | PutKey | PutKeySecret | RevokeKey | PutIdempotencyEntry
)


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One fact and the change that it describes. A refused attempt is a transition too, with `job` None."""

    record: AuditRecord
    job: Job | None = None
    writes: tuple[Write, ...] = ()


class IdempotencyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was carried out. The same key with the same body gets an answer, and nothing is done again.

    `job_id` is the id of its job; of a request about API keys, the id of the key.

    `actor_id` is the id of the actor, with its issuer where this is not the one of API keys.
    """

    tenant_id: TenantId
    actor_id: str
    route: str
    key_sha256: str
    body_sha256: str
    job_id: str
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
        """Return the job as this transaction sees it, None if the tenant has none; a tenant of None is any tenant."""
        ...

    def run(self, job_id: str, number: int) -> Run | None:
        """Return one run of a job."""
        ...

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the job's inputs, ordered by name."""
        ...

    def next_runnable(self, now_ns: int, max_bytes: int | None = None) -> Job | None:
        """Return the next queued job that is due, None when there is none; tenants take turns.

        Jobs of tenants that store `max_bytes` or more are left out.
        """
        ...

    def expired_run(self, now_ns: int) -> Run | None:
        """Return a running run whose lease has ended; None when there is none."""
        ...

    def renew_lease(self, job_id: str, run: int, worker_id: str, until_ns: int) -> bool:
        """Extend the lease; False when this worker no longer holds it (the run was reclaimed, cancelled or ended)."""
        ...

    def remembered(self, tenant_id: TenantId, actor_id: str, route: str, key_sha256: str) -> IdempotencyEntry | None:
        """Return the request that was carried out under this idempotency key, unless the key has expired."""
        ...

    def key_named(self, tenant_id: TenantId, name: str) -> ApiKey | None:
        """Return the key with this name, also a revoked one."""
        ...

    def key(self, key_id: str) -> ApiKey | None:
        """Return the key with this id, also a revoked one."""
        ...

    def one_changes_keys(self) -> None:
        """Wait until no other transaction changes API keys, and keep others waiting until the end."""
        ...

    def keys(self) -> Sequence[ApiKey]:
        """Return all keys, also revoked ones; another transaction that asks for them waits until this one ends."""
        ...

    def note_use(self, key_id: str, used_ns: int) -> None:
        """Store the time of the last use of an API key, unless a later time is stored. This makes no record."""
        ...

    def one_configures(self) -> None:
        """Wait until no other transaction reads or stores configurations, and keep others waiting until the end."""
        ...

    def configuration(
        self, *, source: str | None = None, host: str | None = None, delivers: bool = False, below: int | None = None
    ) -> StoredConfiguration | None:
        """Return the newest stored configuration that is of this source and host, as far as they are given.

        With `delivers`, of those whose processes deliver records; with `below`, of those with lower numbers.
        """
        ...

    def put_configuration(self, stored: StoredConfiguration) -> None:
        """Store a configuration behind the newest one."""
        ...


Work: TypeAlias = Callable[[Transaction], T]
"""Code that runs inside a lane's transaction. It may run more than once, so it changes nothing outside of it."""


class Ledger(Protocol):
    """The ledger, in which changes and records are committed together."""

    def submit(self, work: Work[T]) -> Future[T]:
        """Give work to a lane. The future gets its result after the commit, never before.

        Raises (from the future):
            TryLaterError: nothing was committed.
            BrokenLedgerError: nothing was committed, and the ledger needs a person.
            Exception: the error that `work` raised; its changes were rolled back.
        """
        ...


class Durability(msgspec.Struct, frozen=True):
    """The promise of the database for a commit that it acknowledged, and the settings that break this promise."""

    promise: str
    problems: Sequence[str] = ()
