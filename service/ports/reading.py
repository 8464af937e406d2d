"""Reading: the committed jobs, records, streams and checkpoints, for any thread."""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from service.jobs.model import Content, Job, JobId, Run, Status, TenantId
from service.ports.filters import JobFilter, ListingOrder, RecordFilter
from service.ports.keys import ApiKey, KeyOnRecord, KeyRecord
from telemetry.audit.request import StoredBytes

R = TypeVar("R")


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    """A committed record as it is read."""

    record_id: str
    stream_id: str
    sequence_number: int
    record_hash: str
    event_name: str
    observed_ns: int
    body: str
    delivery: str


class Page(msgspec.Struct, Generic[R], frozen=True):
    """One page of rows; `next_cursor` is None on the last page."""

    rows: Sequence[R]
    next_cursor: str | None


class StreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: its tip, its last delivered number, and the last number that a checkpoint names (None if none does)."""

    stream_id: str
    opened_ns: int
    number: int
    record_hash: str
    observed_ns: int
    is_closed: bool
    delivered: int
    anchored: int | None
    checkpoint: int | None


class CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint: its record, and the signature over the record's body by the key with this fingerprint."""

    number: int
    fingerprint: str
    signature: str
    record: RecordRow


class StoredRecord(StoredBytes, frozen=True, kw_only=True):
    """A committed record with the bytes that are delivered."""

    record: RecordRow


class StatedVersion(msgspec.Struct, frozen=True):
    """A version of a job, with the record that states it, the tip of that record's stream, and the record behind it.

    All of it is as stored, and not checked. What is not there is None.
    """

    version: int
    status: str
    record_id: str | None
    stream_id: str | None
    number: int | None
    record_hash: str | None
    body: str | None
    tip_number: int | None
    tip_hash: str | None
    tip_mac: str | None
    next_body: str | None


class TrailPosition(msgspec.Struct, frozen=True, order=True):
    """The position of a record in the order in which a follow sends records; `cursor` is its text for clients."""

    at: tuple[int | str, ...]
    cursor: str


class FollowedRecord(msgspec.Struct, frozen=True):
    """A committed record and its position."""

    position: TrailPosition
    record: RecordRow


class OutboxState(msgspec.Struct, frozen=True):
    """The committed records that are not delivered: their number and the time of the oldest; and the number parked."""

    depth: int
    oldest_ns: int | None
    parked: int


class Reads(Protocol):
    """Reads of committed rows, for any thread. A tenant of None means every tenant.

    Raises (each method):
        LedgerUnavailableError: the database cannot be read.
    """

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the newest version of a job."""
        ...

    def jobs(self, tenant_id: TenantId | None, where: JobFilter, cursor: str | None, limit: int) -> Page[Job]:
        """Return one page of jobs, newest first."""
        ...

    def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""
        ...

    def stated_versions(self, job_id: str, version: int) -> Sequence[StatedVersion]:
        """Return the versions of a job, up to this one, that decide what its runs execute, in order.

        These are its draft, its confirmation, its first place in the queue, and this version, as far as they are there.
        """
        ...

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the inputs of a job, ordered by name."""
        ...

    def input_payload(self, job_id: str, name: str) -> bytes | None:
        """Return the bytes of an input."""
        ...

    def secrets(self, job_id: str) -> Mapping[str, bytes]:
        """Return the encrypted sensitive parameters of a job, by name."""
        ...

    def artifacts(self, job_id: str, run: int) -> Sequence[Content]:
        """Return the artifacts of a run, ordered by name."""
        ...

    def artifact_part(self, job_id: str, run: int, name: str, begin: int, count: int) -> bytes | None:
        """Return at most `count` bytes of an artifact behind its first `begin`; None when there is no artifact."""
        ...

    def record(self, record_id: str, tenant_id: TenantId | None) -> RecordRow | None:
        """Return a committed record."""
        ...

    def records(
        self, where: RecordFilter, cursor: str | None, limit: int, order: ListingOrder = ListingOrder.DESC
    ) -> Page[RecordRow]:
        """Return one page of records. The first page fixes the upper bound of all later pages, in both orders.

        Raises:
            InvalidRequestError: `cursor` is not one of this order.
        """
        ...

    def stored(self, where: RecordFilter, cursor: str | None, limit: int) -> Page[StoredRecord]:
        """Return one page of records with their bytes, oldest first.

        The first page fixes the upper bound of all later pages, so they hold no record that is committed afterwards.
        """
        ...

    def first_position(self) -> TrailPosition:
        """Return the position before all records."""
        ...

    def newest_position(self) -> TrailPosition:
        """Return the position of the newest record before which no other record can be committed any more."""
        ...

    def position_of(self, cursor: str) -> TrailPosition:
        """Return the position that a cursor names.

        Raises:
            InvalidRequestError: it is not the cursor of a position, or its record is not in this ledger.
        """
        ...

    def followed(
        self, where: RecordFilter, behind: TrailPosition, up_to: TrailPosition, limit: int
    ) -> Sequence[FollowedRecord]:
        """Return at most `limit` records behind a position, up to a newest position, in their order."""
        ...

    def streams(self, cursor: str | None, limit: int) -> Page[StreamRow]:
        """Return one page of the streams of the ledger, last opened first."""
        ...

    def checkpoints(self, cursor: str | None, limit: int) -> Page[CheckpointRow]:
        """Return one page of checkpoints, the last one first."""
        ...

    def checkpoints_behind(self, number: int, limit: int) -> Sequence[CheckpointRow]:
        """Return the checkpoints that follow the one with this number, in order."""
        ...

    def checkpoint_before(self, observed_ns: int) -> int:
        """Return the number of the last checkpoint that was sealed before this time; 0 when there is none."""
        ...

    def anchored(self, stream_id: str) -> int:
        """Return the last number of a stream that a checkpoint names; 0 when none does."""
        ...

    def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
        """Return at most `limit` records of a stream from `first` to `last` with their bytes, in order."""
        ...

    def record_hashes(self, stream_id: str, first: int, last: int) -> Sequence[str]:
        """Return the hashes of the records of a stream from `first` to `last`, in order."""
        ...

    def key(self, key_id: str) -> ApiKey | None:
        """Return an API key, revoked ones included."""
        ...

    def keys(self) -> Sequence[ApiKey]:
        """Return all API keys, oldest first."""
        ...

    def keys_on_record(self, key_id: str | None = None) -> Sequence[KeyOnRecord]:
        """Return the key with this id, or all keys, with their records in one snapshot."""
        ...

    def created_without_key(self) -> Sequence[KeyRecord]:
        """Return the records of keys that were made and are not there."""
        ...

    def key_uses(self) -> Mapping[str, int]:
        """Return the time of the last use of each API key that was used, by its id, in nanoseconds since 1970."""
        ...

    def stored_bytes(self, tenant_id: TenantId) -> int:
        """Return how many bytes of records, inputs and artifacts the tenant stores.

        Records of requests without a credential, and of what the service does by itself, count for no tenant.
        """
        ...

    def job_counts(self) -> Mapping[Status, int]:
        """Return how many jobs are in each status."""
        ...

    def next_due_ns(self) -> int | None:
        """Return the time at which the first queued job is due, which may be past; None when no job is queued."""
        ...

    def cancelled_runs(self, worker_id: str) -> Sequence[JobId]:
        """Return the jobs of this worker's open runs that were cancelled."""
        ...

    def outbox(self) -> OutboxState:
        """Return the state of the outbox."""
        ...
