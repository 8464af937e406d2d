"""Reads of committed rows from any thread, on every database; records are listed by listing.py."""

from collections.abc import Mapping, Sequence
from typing import Final

from service.jobs.model import Content, Job, JobId, Run, Status, TenantId
from service.ports import (
    ApiKey,
    CheckpointRow,
    JobFilter,
    KeyOnRecord,
    KeyRecord,
    OutboxState,
    Page,
    RecordRow,
    StatedVersion,
    StoredRecord,
    StreamRow,
)
from service.store.listing import RecordListings
from service.store.queries import Row, one
from service.store.rows import (
    WITH_ID,
    Stored,
    checkpoint_of,
    decode_cursor,
    decode_job,
    decode_run,
    encode_cursor,
    key_of,
    keys_on_record,
    record_of_row,
    stored_of,
    stream_of,
)

_JOB_CONDITIONS: Final[Mapping[str, str]] = {
    "tenant_id": "tenant_id = :tenant_id",
    "status": "status = :status",
    "template": "template = :template",
    "created_by": "created_by = :created_by",
    "before_id": "(created_ns, job_id) < (:before_ns, :before_id)",
}


class LedgerReads(RecordListings):
    """Implements `service.ports.Reads`; subclasses add what differs between databases."""

    def close(self) -> None:
        """Close the connections; later reads raise."""
        self._connections.close()

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the newest version of a job."""
        row = self._one("job", {"job_id": job_id, "tenant_id": tenant_id})
        return decode_job(row[0]) if row else None

    def jobs(self, tenant_id: TenantId | None, where: JobFilter, cursor: str | None, limit: int) -> Page[Job]:
        """Return one page of jobs, newest first."""
        before_ns, before_id = decode_cursor(cursor, tuple[Stored, str]) if cursor else (None, None)
        values: dict[str, object] = {
            "tenant_id": tenant_id,
            "status": where.status.value if where.status else None,
            "template": where.template,
            "created_by": where.created_by,
            "before_id": before_id,
        }
        conditions = [condition for name, condition in _JOB_CONDITIONS.items() if values[name] is not None]
        values |= {"before_ns": before_ns, "limit": limit + 1}
        rows = self._all("jobs", values, conditions)
        jobs = [decode_job(document) for (document,) in rows[:limit]]
        return Page(jobs, encode_cursor(jobs[-1].created_ns, jobs[-1].job_id) if len(rows) > limit else None)

    def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""
        return [decode_run(document) for (document,) in self._all("runs", {"job_id": job_id})]

    def stated_versions(self, job_id: str, version: int) -> Sequence[StatedVersion]:
        """Return the versions of a job that decide what its runs execute, with their records."""
        return [StatedVersion(*row) for row in self._all("stated_versions", {"job_id": job_id, "version": version})]

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the inputs of a job, ordered by name."""
        return [Content(*row) for row in self._all("inputs", {"job_id": job_id})]

    def input_payload(self, job_id: str, name: str) -> bytes | None:
        """Return the bytes of an input."""
        row = self._one("input_payload", {"job_id": job_id, "name": name})
        return bytes(row[0]) if row else None

    def secrets(self, job_id: str) -> Mapping[str, bytes]:
        """Return the encrypted sensitive parameters of a job, by name."""
        return {name: bytes(ciphertext) for name, ciphertext in self._all("secrets", {"job_id": job_id})}

    def artifacts(self, job_id: str, run: int) -> Sequence[Content]:
        """Return the artifacts of a run, ordered by name."""
        return [Content(*row) for row in self._all("artifacts", {"job_id": job_id, "run": run})]

    def artifact_part(self, job_id: str, run: int, name: str, begin: int, count: int) -> bytes | None:
        """Return at most `count` bytes of an artifact behind its first `begin`; None when there is no artifact."""
        values = {"job_id": job_id, "run": run, "name": name, "begin": begin + 1, "count": count}
        row = self._one("artifact_part", values)
        # SQLite has no value for a part of nothing.
        return bytes(row[0] or b"") if row else None

    def record(self, record_id: str, tenant_id: TenantId | None) -> RecordRow | None:
        """Return a committed record."""
        row = self._one("record", {"record_id": record_id, "tenant_id": tenant_id})
        return record_of_row(row) if row else None

    def streams(self, cursor: str | None, limit: int) -> Page[StreamRow]:
        """Return one page of the streams of the ledger, last opened first."""
        before_ns, before_id = decode_cursor(cursor, tuple[Stored, str]) if cursor else (None, None)
        values = {"before_ns": before_ns, "before_id": before_id, "limit": limit + 1}
        rows = [stream_of(row) for row in self._all("streams", values)]
        page = rows[:limit]
        return Page(page, encode_cursor(page[-1].opened_ns, page[-1].stream_id) if len(rows) > limit else None)

    def checkpoints(self, cursor: str | None, limit: int) -> Page[CheckpointRow]:
        """Return one page of checkpoints, the last one first."""
        (before,) = decode_cursor(cursor, tuple[Stored]) if cursor else (None,)
        rows = [checkpoint_of(row) for row in self._all("checkpoints", {"before": before, "limit": limit + 1})]
        return Page(rows[:limit], encode_cursor(rows[limit - 1].number) if len(rows) > limit else None)

    def checkpoints_behind(self, number: int, limit: int) -> Sequence[CheckpointRow]:
        """Return the checkpoints after the one of this number, in order."""
        return [checkpoint_of(row) for row in self._all("checkpoints_behind", {"behind": number, "limit": limit})]

    def checkpoint_before(self, observed_ns: int) -> int:
        """Return the number of the last checkpoint that was sealed before this time; 0 when there is none."""
        return self._number("checkpoint_before", {"observed_ns": observed_ns})

    def anchored(self, stream_id: str) -> int:
        """Return the last number of a stream that a checkpoint names; 0 when none does."""
        return self._number("anchored", {"stream_id": stream_id})

    def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
        """Return at most `limit` records of a stream from `first` to `last` with their bytes, in order."""
        values = {"stream_id": stream_id, "first": first, "last": last, "limit": limit}
        return [stored_of(row) for row in self._all("stored_of_stream", values)]

    def record_hashes(self, stream_id: str, first: int, last: int) -> Sequence[str]:
        """Return the hashes of the records of a stream from `first` to `last`, in order."""
        values = {"stream_id": stream_id, "first": first, "last": last}
        return [record_hash for (record_hash,) in self._all("hashes_of_stream", values)]

    def key(self, key_id: str) -> ApiKey | None:
        """Return an API key, also a revoked one."""
        rows = self._all("api_keys", {"key_id": key_id}, WITH_ID)
        return key_of(rows[0]) if rows else None

    def keys(self) -> Sequence[ApiKey]:
        """Return all API keys, oldest first."""
        return [key_of(row) for row in self._all("api_keys", {}, ())]

    def keys_on_record(self, key_id: str | None = None) -> Sequence[KeyOnRecord]:
        """Return the key with this id, or all keys, with their records in one snapshot."""
        conditions = () if key_id is None else WITH_ID
        return keys_on_record(self._all("keys_on_record", {"key_id": key_id}, conditions))

    def created_without_key(self) -> Sequence[KeyRecord]:
        """Return the records of keys that were made and are not there."""
        return [KeyRecord(*row) for row in self._all("created_without_key", {})]

    def key_uses(self) -> Mapping[str, int]:
        """Return when each API key was used last, by its id."""
        return dict(self._all("key_uses", {}))

    def stored_bytes(self, tenant_id: TenantId) -> int:
        """Return how many bytes of records, inputs and artifacts the tenant stores."""
        return self._number("stored_bytes", {"tenant_id": tenant_id})

    def job_counts(self) -> Mapping[Status, int]:
        """Return how many jobs are in each status."""
        return {Status(status): count for status, count in self._all("job_counts", {})}

    def next_due_ns(self) -> int | None:
        """Return when the first queued job is due, which may be in the past; None if no job is queued."""
        ((due_ns,),) = self._all("next_due", {})
        return None if due_ns is None else int(due_ns)

    def cancelled_runs(self, worker_id: str) -> Sequence[JobId]:
        """Return the jobs of this worker's open runs that were cancelled."""
        return [JobId(job_id) for (job_id,) in self._all("cancelled_runs", {"worker_id": worker_id})]

    def outbox(self) -> OutboxState:
        """Return what is committed and not yet delivered."""
        ((depth, oldest_ns, parked),) = self._all("outbox_state", {})
        return OutboxState(depth, oldest_ns, parked)

    def _one(self, name: str, values: Mapping[str, object]) -> Row | None:
        return self._connections.run(lambda execute: one(execute(name, values)))

    def _all(self, name: str, values: Mapping[str, object], conditions: Sequence[str] | None = None) -> Sequence[Row]:
        return self._connections.run(lambda execute: list(execute(name, values, conditions)))

    def _number(self, name: str, values: Mapping[str, object]) -> int:
        ((number,),) = self._all(name, values)
        return int(number)
