"""Reads of committed rows from any thread, each thread on a read-only connection of its own."""

import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from service.errors import LedgerUnavailableError
from service.jobs.model import Content, Job, JobId, Run, Status, TenantId
from service.ports import (
    ApiKey,
    CheckpointPage,
    CheckpointRow,
    JobFilter,
    JobPage,
    OutboxState,
    Page,
    RecordFilter,
    RecordRow,
    StoredPage,
    StoredRecord,
    StreamPage,
)
from service.store.rows import (
    Stored,
    checkpoint_of,
    decode_cursor,
    decode_job,
    decode_run,
    encode_cursor,
    key_of,
    record_of_row,
    stored_of,
    stream_of,
)
from service.store.sqlite.transaction import SQL
from service.store.sqlite.untouched import Reading, in_use

Row: TypeAlias = tuple[Any, ...]

_CONDITIONS: Final[Mapping[str, str]] = {
    "actor_id": "actor_id = :actor_id",
    "action": "action = :action",
    "event_name": "event_name = :event_name",
    "outcome": "outcome = :outcome",
    "result": "result = :result",
    "target_type": "target_type = :target_type",
    "target_id": "target_id = :target_id",
    "trace_id": "trace_id = :trace_id",
    "span_id": "span_id = :span_id",
    "job_id": "job_id = :job_id",
    "stream_id": "audit_records.stream_id = :stream_id",
    "request_id": "request_id = :request_id",
    "tenant_id": "tenant_id = :tenant_id",
    "since_ns": "observed_ns >= :since_ns",
    "until_ns": "observed_ns < :until_ns",
}
_JOB_CONDITIONS: Final[Mapping[str, str]] = {
    "tenant_id": "tenant_id = :tenant_id",
    "status": "status = :status",
    "template": "template = :template",
    "created_by": "created_by = :created_by",
    "before_id": "(created_ns, job_id) < (:before_ns, :before_id)",
}


class SqliteReads:
    """Implements `service.ports.Reads`."""

    def __init__(self, path: Path, reading: Reading = in_use) -> None:
        self._path = path
        self._reading = reading
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections = ExitStack()
        self._is_closed = False

    def close(self) -> None:
        """Close the connections of all threads; none may read any more."""
        with self._lock:
            self._is_closed = True
            self._connections.close()

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the newest version of a job."""
        row = self._one("job", {"job_id": job_id, "tenant_id": tenant_id})
        return decode_job(str(row[0])) if row else None

    def jobs(self, tenant_id: TenantId | None, where: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """Return one page of jobs, newest first."""
        before_ns, before_id = decode_cursor(cursor, tuple[Stored, str]) if cursor else (None, None)
        values: dict[str, object] = {
            "tenant_id": tenant_id,
            "status": where.status.value if where.status else None,
            "template": where.template,
            "created_by": where.created_by,
            "before_id": before_id,
        }
        clause = _where([condition for name, condition in _JOB_CONDITIONS.items() if values[name] is not None])
        sql = f"{SQL['jobs']} {clause} ORDER BY created_ns DESC, job_id DESC LIMIT :limit"
        with self._connection() as connection:
            rows = connection.execute(sql, {**values, "before_ns": before_ns, "limit": limit + 1}).fetchall()
        jobs = [decode_job(str(row[0])) for row in rows[:limit]]
        more = encode_cursor(jobs[-1].created_ns, jobs[-1].job_id) if len(rows) > limit else None
        return JobPage(jobs, more)

    def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""
        return [decode_run(str(row[0])) for row in self._all("runs", {"job_id": job_id})]

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the inputs of a job, ordered by name."""
        return [Content(*row) for row in self._all("inputs", {"job_id": job_id})]

    def input_payload(self, job_id: str, name: str) -> bytes | None:
        """Return the bytes of an input."""
        row = self._one("input_payload", {"job_id": job_id, "name": name})
        return bytes(row[0]) if row else None

    def secrets(self, job_id: str) -> Mapping[str, bytes]:
        """Return the encrypted sensitive parameters of a job, by name."""
        return {str(name): bytes(ciphertext) for name, ciphertext in self._all("secrets", {"job_id": job_id})}

    def artifacts(self, job_id: str, run: int) -> Sequence[Content]:
        """Return what a run left behind, ordered by name."""
        return [Content(*row) for row in self._all("artifacts", {"job_id": job_id, "run": run})]

    def artifact_payload(self, job_id: str, run: int, name: str) -> bytes | None:
        """Return the bytes of an artifact."""
        row = self._one("artifact_payload", {"job_id": job_id, "run": run, "name": name})
        return bytes(row[0]) if row else None

    def record(self, record_id: str, tenant_id: TenantId | None) -> RecordRow | None:
        """Return a committed record."""
        tenant = "" if tenant_id is None else "AND tenant_id = :tenant_id"
        sql = f"{SQL['record_columns']} WHERE record_id = :record_id {tenant}"
        with self._connection() as connection:
            row = connection.execute(sql, {"record_id": record_id, "tenant_id": tenant_id}).fetchone()
        return record_of_row(row) if row else None

    def records(self, where: RecordFilter, cursor: str | None, limit: int) -> Page:
        """Return one page of records, last committed first.

        The page before fixes the upper bound of the next, so nothing is skipped or shown twice while records are
        added; the observed time is taken under the writer's lock, so the order is that of observed time.
        """
        conditions, values = _matching(where)
        if cursor is not None:
            (values["before"],) = decode_cursor(cursor, tuple[Stored])
            conditions.append("position < :before")
        sql = f"{SQL['record_columns']} {_where(conditions)} ORDER BY position DESC LIMIT :limit"
        with self._connection() as connection:
            rows = connection.execute(sql, {**values, "limit": limit + 1}).fetchall()
        more = encode_cursor(int(rows[limit - 1][-1])) if len(rows) > limit else None
        return Page([record_of_row(row) for row in rows[:limit]], more)

    def stored(self, where: RecordFilter, cursor: str | None, limit: int) -> StoredPage:
        """Return one page of records with their bytes, first committed first, up to the last one of the first page."""
        conditions, values = _matching(where)
        with self._connection() as connection:
            if cursor is None:
                (last,) = connection.execute(SQL["last_position"]).fetchone()
                behind = 0
            else:
                behind, last = decode_cursor(cursor, tuple[Stored, Stored])
            conditions += ["position > :behind", "position <= :last"]
            sql = f"{SQL['stored_columns']} WHERE {' AND '.join(conditions)} ORDER BY position LIMIT :limit"
            values |= {"behind": behind, "last": last, "limit": limit + 1}
            rows = connection.execute(sql, values).fetchall()
        more = encode_cursor(int(rows[limit - 1][-1]), last) if len(rows) > limit else None
        return StoredPage([stored_of(row) for row in rows[:limit]], more)

    def streams(self, cursor: str | None, limit: int) -> StreamPage:
        """Return one page of the streams of the ledger, last opened first."""
        before_ns, before_id = decode_cursor(cursor, tuple[Stored, str]) if cursor else (None, None)
        values = {"before_ns": before_ns, "before_id": before_id, "limit": limit + 1}
        rows = [stream_of(row) for row in self._all("streams", values)]
        page = rows[:limit]
        return StreamPage(page, encode_cursor(page[-1].opened_ns, page[-1].stream_id) if len(rows) > limit else None)

    def checkpoints(self, cursor: str | None, limit: int) -> CheckpointPage:
        """Return one page of checkpoints, the last one first."""
        (before,) = decode_cursor(cursor, tuple[Stored]) if cursor else (None,)
        rows = [checkpoint_of(row) for row in self._all("checkpoints", {"before": before, "limit": limit + 1})]
        return CheckpointPage(rows[:limit], encode_cursor(rows[limit - 1].number) if len(rows) > limit else None)

    def checkpoints_behind(self, number: int, limit: int) -> Sequence[CheckpointRow]:
        """Return the checkpoints that follow the one of this number, in order."""
        return [checkpoint_of(row) for row in self._all("checkpoints_behind", {"behind": number, "limit": limit})]

    def checkpoint_before(self, observed_ns: int) -> int:
        """Return the number of the last checkpoint that was sealed before this time; 0 when there is none."""
        ((number,),) = self._all("checkpoint_before", {"observed_ns": observed_ns})
        return int(str(number))

    def anchored(self, stream_id: str) -> int:
        """Return the last number of a stream that a checkpoint names; 0 when none does."""
        ((number,),) = self._all("anchored", {"stream_id": stream_id})
        return int(str(number))

    def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
        """Return at most `limit` records of a stream from `first` to `last` with their bytes, in order."""
        of_stream = "WHERE audit_records.stream_id = :stream_id AND audit_records.number BETWEEN :first AND :last"
        sql = f"{SQL['stored_columns']} {of_stream} ORDER BY audit_records.number LIMIT :limit"
        with self._connection() as connection:
            rows = connection.execute(sql, {"stream_id": stream_id, "first": first, "last": last, "limit": limit})
            return [stored_of(row) for row in rows.fetchall()]

    def record_hashes(self, stream_id: str, first: int, last: int) -> Sequence[str]:
        """Return the hashes of the records of a stream from `first` to `last`, in order."""
        values = {"stream_id": stream_id, "first": first, "last": last}
        return [str(record_hash) for (record_hash,) in self._all("hashes_of_stream", values)]

    def key(self, key_id: str) -> ApiKey | None:
        """Return an API key, revoked ones included."""
        row = self._one("key", {"key_id": key_id})
        return key_of(row) if row else None

    def keys(self) -> Sequence[ApiKey]:
        """Return all API keys, oldest first."""
        return [key_of(row) for row in self._all("keys", {})]

    def key_uses(self) -> Mapping[str, int]:
        """Return when each API key was used last, by its id."""
        return dict(self._all("key_uses", {}))

    def job_counts(self) -> Mapping[Status, int]:
        """Return how many jobs are in each status."""
        return {Status(str(status)): int(str(count)) for status, count in self._all("job_counts", {})}

    def next_due_ns(self) -> int | None:
        """Return when the first queued job is due, which may be past; None when no job is queued."""
        row = self._one("next_due", {})
        return None if row is None or row[0] is None else int(row[0])

    def cancelled_runs(self, worker_id: str) -> Sequence[JobId]:
        """Return the jobs of this worker's open runs that were cancelled."""
        return [JobId(str(row[0])) for row in self._all("cancelled_runs", {"worker_id": worker_id})]

    def outbox(self) -> OutboxState:
        """Return what is committed and not yet delivered."""
        with self._connection() as connection:
            (depth,) = connection.execute(SQL["outbox_depth"]).fetchone()
            (oldest,) = connection.execute(SQL["outbox_oldest"]).fetchone()
            (parked,) = connection.execute(SQL["parked_count"]).fetchone()
        return OutboxState(depth, oldest, parked)

    def _one(self, name: str, values: Mapping[str, object]) -> Row | None:
        with self._connection() as connection:
            row: Row | None = connection.execute(SQL[name], values).fetchone()
        return row

    def _all(self, name: str, values: Mapping[str, object]) -> list[Row]:
        with self._connection() as connection:
            return connection.execute(SQL[name], values).fetchall()

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                if self._is_closed:
                    raise LedgerUnavailableError("the ledger is closed: the service is stopping")
                connection = self._connections.enter_context(self._reading(self._path))
            self._local.connection = connection
        with connection.in_place():
            yield connection


def _matching(where: RecordFilter) -> tuple[list[str], dict[str, object]]:
    values: dict[str, object] = {name: getattr(where, name) for name in _CONDITIONS}
    return [_CONDITIONS[name] for name, value in values.items() if value is not None], values


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
