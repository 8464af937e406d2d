"""Reads of committed rows from any thread, on read-only sessions of their own."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from service.store.postgres.connection import Session
from service.store.postgres.horizon import horizon_ns
from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import SQL
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

_CONDITIONS: Final[Mapping[str, bytes]] = {
    "actor_id": b"actor_id = %(actor_id)s",
    "action": b"action = %(action)s",
    "event_name": b"event_name = %(event_name)s",
    "outcome": b"outcome = %(outcome)s",
    "result": b"result = %(result)s",
    "target_type": b"target_type = %(target_type)s",
    "target_id": b"target_id = %(target_id)s",
    "trace_id": b"trace_id = %(trace_id)s",
    "span_id": b"span_id = %(span_id)s",
    "job_id": b"job_id = %(job_id)s",
    "stream_id": b"records.stream_id = %(stream_id)s",
    "request_id": b"request_id = %(request_id)s",
    "tenant_id": b"tenant_id = %(tenant_id)s",
    "since_ns": b"observed_ns >= %(since_ns)s",
    "until_ns": b"observed_ns < %(until_ns)s",
}
_JOB_CONDITIONS: Final[Mapping[str, bytes]] = {
    "tenant_id": b"tenant_id = %(tenant_id)s",
    "status": b"status = %(status)s",
    "template": b"template = %(template)s",
    "created_by": b"created_by = %(created_by)s",
    "before_id": b"(created_ns, job_id) < (%(before_ns)s, %(before_id)s)",
}


class PostgresReads:
    """Implements `service.ports.Reads`."""

    def __init__(self, url: str) -> None:
        self._pool = SessionPool(url, read_only=True)

    def close(self) -> None:
        """Close the sessions; nobody may read any more."""
        self._pool.close()

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the newest version of a job."""
        row = self._one("job", {"job_id": job_id, "tenant_id": tenant_id})
        return decode_job(row[0]) if row else None

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
        conditions = [condition for name, condition in _JOB_CONDITIONS.items() if values[name] is not None]
        sql = b" ".join([SQL["jobs"], _where(conditions), b"ORDER BY created_ns DESC, job_id DESC LIMIT %(limit)s"])
        more = {"before_ns": before_ns, "limit": limit + 1}
        rows = self._pool.run(lambda session: session.execute(sql, {**values, **more}).fetchall())
        jobs = [decode_job(row[0]) for row in rows[:limit]]
        return JobPage(jobs, encode_cursor(jobs[-1].created_ns, jobs[-1].job_id) if len(rows) > limit else None)

    def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job, first to last."""
        return [decode_run(row[0]) for row in self._all("runs", {"job_id": job_id})]

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
        """Return what a run left behind, ordered by name."""
        return [Content(*row) for row in self._all("artifacts", {"job_id": job_id, "run": run})]

    def artifact_payload(self, job_id: str, run: int, name: str) -> bytes | None:
        """Return the bytes of an artifact."""
        row = self._one("artifact_payload", {"job_id": job_id, "run": run, "name": name})
        return bytes(row[0]) if row else None

    def record(self, record_id: str, tenant_id: TenantId | None) -> RecordRow | None:
        """Return a committed record."""
        row = self._one("record", {"record_id": record_id, "tenant_id": tenant_id})
        return record_of_row(row) if row else None

    def records(self, where: RecordFilter, cursor: str | None, limit: int) -> Page:
        """Return one page of records, newest first by observed time.

        The first page ends at a horizon behind which no record can appear any more (horizon.py), and each page fixes
        the upper bound of the next: nothing is skipped or shown twice while records are added.
        """
        conditions, values = _matching(where)
        if cursor is not None:
            values["before_ns"], values["before_id"] = decode_cursor(cursor, tuple[Stored, str])
            conditions.append(b"observed_ns <= %(before_ns)s")
            conditions.append(b"(observed_ns, records.stream_id) < (%(before_ns)s, %(before_id)s)")
        else:
            conditions.append(b"observed_ns < %(horizon_ns)s")
        order = b"ORDER BY observed_ns DESC, records.stream_id DESC LIMIT %(limit)s"
        sql = b" ".join([SQL["record_columns"], _where(conditions), order])

        def read(session: Session) -> list[tuple[Any, ...]]:
            if cursor is None:
                values["horizon_ns"] = horizon_ns(session)
            return session.execute(sql, {**values, "limit": limit + 1}).fetchall()

        rows = [record_of_row(row) for row in self._pool.run(read)]
        page, has_more = rows[:limit], len(rows) > limit
        return Page(page, encode_cursor(page[-1].observed_ns, page[-1].stream_id) if has_more else None)

    def stored(self, where: RecordFilter, cursor: str | None, limit: int) -> StoredPage:
        """Return one page of records with their bytes, oldest first by observed time, up to a horizon (horizon.py)."""
        conditions, values = _matching(where)
        conditions += [b"observed_ns < %(horizon_ns)s", b"observed_ns >= %(behind_ns)s"]
        conditions.append(b"(observed_ns, records.stream_id) > (%(behind_ns)s, %(behind_id)s)")
        order = b"ORDER BY observed_ns, records.stream_id LIMIT %(limit)s"
        sql = b" ".join([SQL["stored_columns"], _where(conditions), order])

        def read(session: Session) -> list[tuple[Any, ...]]:
            if cursor is None:
                values.update(behind_ns=0, behind_id="", horizon_ns=horizon_ns(session))
            else:
                place = decode_cursor(cursor, tuple[Stored, str, Stored])
                values.update(zip(("behind_ns", "behind_id", "horizon_ns"), place, strict=True))
            return session.execute(sql, {**values, "limit": limit + 1}, binary=True).fetchall()

        rows = [stored_of(row) for row in self._pool.run(read)]
        page, has_more = rows[:limit], len(rows) > limit
        last = page[-1].record if page else None
        more = encode_cursor(last.observed_ns, last.stream_id, values["horizon_ns"]) if has_more and last else None
        return StoredPage(page, more)

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
        return int(number)

    def anchored(self, stream_id: str) -> int:
        """Return the last number of a stream that a checkpoint names; 0 when none does."""
        ((number,),) = self._all("anchored", {"stream_id": stream_id})
        return int(number)

    def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
        """Return at most `limit` records of a stream from `first` to `last` with their bytes, in order."""
        of_stream = b"WHERE records.stream_id = %(stream_id)s AND records.number BETWEEN %(first)s AND %(last)s"
        sql = b" ".join([SQL["stored_columns"], of_stream, b"ORDER BY records.number LIMIT %(limit)s"])
        values = {"stream_id": stream_id, "first": first, "last": last, "limit": limit}
        rows = self._pool.run(lambda session: session.execute(sql, values, binary=True).fetchall())
        return [stored_of(row) for row in rows]

    def record_hashes(self, stream_id: str, first: int, last: int) -> Sequence[str]:
        """Return the hashes of the records of a stream from `first` to `last`, in order."""
        values = {"stream_id": stream_id, "first": first, "last": last}
        return [record_hash for (record_hash,) in self._all("hashes_of_stream", values)]

    def key(self, key_id: str) -> ApiKey | None:
        """Return an API key, revoked ones included."""
        row = self._one("key", {"key_id": key_id})
        return key_of(row) if row else None

    def keys(self) -> Sequence[ApiKey]:
        """Return all API keys, oldest first."""
        return [key_of(row) for row in self._all("keys")]

    def key_uses(self) -> Mapping[str, int]:
        """Return when each API key was used last, by its id."""
        return dict(self._all("key_uses"))

    def job_counts(self) -> Mapping[Status, int]:
        """Return how many jobs are in each status."""
        return {Status(status): count for status, count in self._all("job_counts")}

    def next_due_ns(self) -> int | None:
        """Return when the first queued job is due, which may be past; None when no job is queued."""
        ((due_ns,),) = self._all("next_due")
        return None if due_ns is None else int(due_ns)

    def cancelled_runs(self, worker_id: str) -> Sequence[JobId]:
        """Return the jobs of this worker's open runs that were cancelled."""
        return [JobId(row[0]) for row in self._all("cancelled_runs", {"worker_id": worker_id})]

    def outbox(self) -> OutboxState:
        """Return what is committed and not yet delivered."""
        ((depth, oldest_ns, parked),) = self._all("outbox_state")
        return OutboxState(int(depth), oldest_ns, parked)

    def _one(self, name: str, values: Mapping[str, object]) -> tuple[Any, ...] | None:
        return self._pool.run(lambda session: session.execute(SQL[name], values, binary=True).fetchone())

    def _all(self, name: str, values: Mapping[str, object] | None = None) -> Sequence[tuple[Any, ...]]:
        return self._pool.run(lambda session: session.execute(SQL[name], values, binary=True).fetchall())


def _matching(where: RecordFilter) -> tuple[list[bytes], dict[str, Any]]:
    values: dict[str, Any] = {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name in _CONDITIONS
        if (value := getattr(where, name)) is not None
    }
    return [_CONDITIONS[name] for name in values], values


def _where(conditions: Sequence[bytes]) -> bytes:
    return b"WHERE " + b" AND ".join(conditions) if conditions else b""
