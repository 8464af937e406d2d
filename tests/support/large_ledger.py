"""Fills a PostgreSQL with a ledger of any size, as after years: sealed by the service's own code and copied in.

Every record is emitted through the Logs API into a stream, as a lane does it; what is left out is the group commit.
"""

import hashlib
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg
from opentelemetry.sdk.resources import Resource
from psycopg.sql import SQL, Identifier

from service.jobs.model import Job, JobId, Run, RunStatus, Status, TenantId
from service.secrets import DeploymentSecret
from service.store.postgres.checkpoints import PostgresCheckpoints
from service.store.postgres.lanes import PostgresLanes
from service.store.rows import encode
from service.store.streams import StreamSettings
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger, SealedRecord
from telemetry.audit.record import Actor, AuditRecord, Result, SpanRef, Target, audit_record
from telemetry.audit.signer import Signer

RECORDS_A_JOB: Final = 5
"""What the life of a job leaves: created, drafted, triggered, claimed, succeeded."""

_STEP_NS: Final = 1_000_000
_JOBS_AT_ONCE: Final = 1_000
_TENANTS: Final = 16
_ACTORS: Final = 40
_STORY: Final = (
    ("job.create", None, Status.CREATED, "api"),
    ("job.draft", Status.CREATED, Status.DRAFT_READY, "api"),
    ("job.run.trigger", Status.DRAFT_READY, Status.QUEUED, "api"),
    ("job.status.transition", Status.QUEUED, Status.RUNNING, "worker"),
    ("job.status.transition", Status.RUNNING, Status.SUCCEEDED, "worker"),
)

Rows = dict[str, list[tuple[object, ...]]]


class _Stream:
    """Takes sealed records as rows; implements `telemetry.audit.ledger.OpenLedger`."""

    def __init__(self, stream_id: str, start_ns: int, rows: Rows, envelope_id: int) -> None:
        self.tip = Tip(stream_id)
        self._now_ns = start_ns
        self._rows = rows
        self._envelope_id = envelope_id

    def observe_ns(self) -> int:
        self._now_ns += _STEP_NS
        return self._now_ns

    def append(self, sealed: SealedRecord) -> None:
        said, tip = sealed.attributes, sealed.tip
        version = said.get(names.AUDITRACE_TARGET_VERSION)
        versioned_job = said[names.AUDIT_TARGET_ID] if version is not None else None
        self._rows["audit_records"].append(
            (
                *(tip.record_id, tip.stream_id, tip.number, tip.hash, sealed.event_name, sealed.timestamp_ns),
                *(tip.observed_ns, said[names.AUDITRACE_TENANT_ID], said[names.AUDIT_ACTOR_ID]),
                *(said[names.AUDIT_ACTION], said[names.AUDIT_OUTCOME], said[names.AUDITRACE_RESULT]),
                *(said[names.AUDIT_TARGET_TYPE], said[names.AUDIT_TARGET_ID], version, versioned_job),
                *(said.get(names.AUDITRACE_JOB_ID), said.get(names.AUDITRACE_REQUEST_ID)),
                *(sealed.span.trace_id, sealed.span.span_id, sealed.body.decode(), sealed.otlp, self._envelope_id),
            )
        )
        self._rows["audit_record_keys"].append(
            (tip.record_id, tip.stream_id, tip.number, tip.observed_ns, versioned_job, version)
        )
        self.tip = tip


class LargeLedger:
    """A ledger that is filled in `streams` closed streams and covered by checkpoints.

    Args:
        url: of a migrated database in which this ledger may already have begun.
        secret: of its deployment.
        signer: whose key it knows, or is to know.
        now_ns: when it is made; its records are of the time before.
    """

    def __init__(self, url: str, secret: DeploymentSecret, signer: Signer, now_ns: int) -> None:
        self._url = url
        self._secret = secret
        self._signer = signer
        self._now_ns = now_ns
        self._audit_log = AuditLogger(Resource({names.SERVICE_NAME: "auditrace"}), "0.1.0")
        self._numbers = itertools.count(1)
        self._series = uuid.uuid5(uuid.NAMESPACE_URL, f"{url} {now_ns}")

    def fill(self, records: int, streams: int = 4, on_body: Callable[[str], object] = lambda _: None) -> None:
        """Add so many records, a whole life of a job at a time, and sign over them.

        Args:
            records: at least as many are added, apart from the openings, ends and checkpoints of streams.
            streams: over how many they are spread.
            on_body: is given the body of each, those of the ledger itself included.
        """
        jobs = -(-records // RECORDS_A_JOB)
        start_ns = self._now_ns - (jobs // streams + 1) * (RECORDS_A_JOB + 1) * _STEP_NS - 60_000_000_000
        with psycopg.connect(self._url) as session:
            session.execute("SET session_replication_role = replica")
            session.execute("SELECT make_record_partitions(%s)", [start_ns])
            for share in range(streams):
                mine = range(share, jobs, streams)
                self._fill_stream(session, start_ns, len(mine), on_body)
                session.commit()
        self._sign_over(on_body)
        with psycopg.connect(self._url, autocommit=True) as session:
            session.execute("VACUUM ANALYZE")
            session.execute("CHECKPOINT")

    def deliver(self) -> None:
        """Let what was filled in count as delivered."""
        with psycopg.connect(self._url) as session:
            session.execute(
                "UPDATE delivery_cursors SET number = audit_streams.number FROM audit_streams"
                " WHERE audit_streams.stream_id = delivery_cursors.stream_id AND audit_streams.owner = 'large'"
            )

    def _fill_stream(
        self, session: psycopg.Connection[Any], start_ns: int, jobs: int, on_body: Callable[[str], object]
    ) -> None:
        resource, scope = self._audit_log.resource_bytes, self._audit_log.scope_bytes
        ((envelope_id,),) = session.execute(
            "INSERT INTO audit_envelopes (resource, scope) VALUES (%s, %s) RETURNING envelope_id", [resource, scope]
        ).fetchall()
        rows: Rows = {table: [] for table in _COLUMNS}
        stream = _Stream(self._new_id(version=4), start_ns, rows, envelope_id)
        self._audit_log.emit(self._system_record("audit.stream.open"), stream)
        for left in range(jobs, 0, -_JOBS_AT_ONCE):
            for _ in range(min(left, _JOBS_AT_ONCE)):
                self._live(stream, rows)
            _copy(session, rows, on_body)
        self._audit_log.emit(self._system_record("audit.stream.close"), stream)
        tip = stream.tip
        mac = self._secret.tip_mac(tip.stream_id, tip.number, tip.hash)
        rows["audit_streams"].append(
            (tip.stream_id, 1, "large", "", start_ns, tip.number, tip.hash, tip.record_id, tip.observed_ns, mac, 1, 0)
        )
        rows["delivery_cursors"].append((tip.stream_id, 0))
        _copy(session, rows, on_body)

    def _live(self, stream: _Stream, rows: Rows) -> None:
        """Let a job live its whole life."""
        number = next(self._numbers)
        job_id, actor = JobId(self._new_id()), f"actor-{number % _ACTORS}"
        tenant = TenantId("default" if number % 2 else f"tenant-{number % _TENANTS}")
        trace_id, now_ns = f"{uuid.UUID(job_id).int:032x}", stream.observe_ns()
        job = Job(
            job_id=job_id,
            tenant_id=tenant,
            template="greet",
            parameters={"name": str(number)},
            status=Status.CREATED,
            version=0,
            created_by=actor,
            created_ns=now_ns,
            updated_ns=now_ns,
            trace_id=trace_id,
        )
        for before, (event_name, old, new, source) in enumerate(_STORY):
            job = msgspec.structs.replace(
                job, version=before + 1, status=new, run=int(before > 2), updated_ns=now_ns + before
            )
            status = {"to": new.value} if old is None else {"from": old.value, "to": new.value}
            record = audit_record(
                record_id=self._new_id(),
                event_name=event_name,
                timestamp_ns=now_ns + before,
                span=SpanRef(trace_id, f"{number * 8 + before + 1:016x}", 1),
                actor=Actor(actor, "user", "key") if source == "api" else Actor("worker", "service", "service"),
                result=Result.SUCCESS,
                target=Target("job", job_id, job.version),
                tenant_id=tenant,
                source="api" if source == "api" else "worker",
                more={
                    names.AUDITRACE_CHANGES: {"status": {**status}},
                    names.AUDITRACE_JOB_ID: job_id,
                    names.AUDITRACE_JOB_TEMPLATE: job.template,
                    names.AUDITRACE_REQUEST_ID: f"request-{number * 8 + before}",
                    names.HTTP_ROUTE: "/v1/jobs" if source == "api" else None,
                },
            )
            self._audit_log.emit(record, stream)
            sha256 = hashlib.sha256(encode(job).encode()).hexdigest()
            rows["job_versions"].append((job_id, job.version, new.value, record.record_id, sha256))
        rows["jobs"].append((job_id, tenant, "greet", job.status.value, job.version, actor, now_ns, 0, encode(job)))
        run = Run(
            job_id=job_id,
            number=1,
            status=RunStatus.SUCCEEDED,
            worker_id="large",
            traceparent=f"00-{trace_id}-{number:016x}-01",
            started_ns=now_ns,
            ended_ns=now_ns + 1,
            exit_code=0,
            duration_ms=1,
        )
        rows["job_runs"].append((job_id, 1, run.status.value, run.worker_id, encode(run), None))

    def _sign_over(self, on_body: Callable[[str], object]) -> None:
        settings = StreamSettings(
            audit_log=self._audit_log,
            secret=self._secret,
            clock=lambda: self._now_ns,
            new_stream_id=lambda: self._new_id(version=4),
            owner="large",
            system_record=self._system_record,
            operator_record=self._system_record,
            on_commit=lambda _: None,
        )
        lanes = PostgresLanes(settings, self._url, 1)
        keys = {self._signer.fingerprint: self._signer}
        writer = PostgresCheckpoints(lanes, keys.get)
        writer.register(self._signer)
        writer.write()
        lanes.close(writer.write_last)
        writer.close()
        with psycopg.connect(self._url) as session:
            own = "SELECT body FROM audit_records JOIN audit_streams USING (stream_id) WHERE owner = 'large'"
            for (body,) in session.execute(f"{own} AND session <> '' ORDER BY audit_records.number"):
                on_body(body)

    def _system_record(self, event_name: str) -> AuditRecord:
        return audit_record(
            record_id=self._new_id(),
            event_name=event_name,
            timestamp_ns=self._now_ns,
            span=SpanRef("1" * 32, "2" * 16, 1),
            actor=Actor("auditrace", "system", "service"),
            result=Result.SUCCESS,
            target=Target("ledger", "auditrace"),
            tenant_id="default",
            source="api",
        )

    def _new_id(self, version: int = 7) -> str:
        """Return an id that no other ledger has."""
        if version == 4:
            return str(uuid.UUID(int=uuid.uuid5(self._series, str(next(self._numbers))).int, version=4))
        number = next(self._numbers)
        head = self._now_ns // 1_000_000 - 10**7 + number // 1000
        return str(uuid.UUID(int=head << 80 | 7 << 76 | 2 << 62 | self._series.int & 0x3FFF << 40 | number))


def _copy(session: psycopg.Connection[Any], rows: Rows, on_body: Callable[[str], object]) -> None:
    for row in rows["audit_records"]:
        on_body(str(row[_COLUMNS["audit_records"].index("body")]))
    for table, columns in _COLUMNS.items():
        if not rows[table]:
            continue
        listed = SQL(", ").join(map(Identifier, columns))
        with session.cursor().copy(SQL("COPY {} ({}) FROM STDIN").format(Identifier(table), listed)) as copying:
            for row in rows[table]:
                copying.write_row(row)
        rows[table].clear()


_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "audit_streams": (
        *("stream_id", "epoch", "owner", "session", "opened_ns", "number", "hash", "record_id", "observed_ns", "mac"),
        *("closed", "alive_until_ns"),
    ),
    "delivery_cursors": ("stream_id", "number"),
    "audit_records": (
        *("record_id", "stream_id", "number", "hash", "event_name", "timestamp_ns", "observed_ns", "tenant_id"),
        *("actor_id", "action", "outcome", "result", "target_type", "target_id", "target_version", "versioned_job"),
        *("job_id", "request_id", "trace_id", "span_id", "body", "otlp", "envelope_id"),
    ),
    "audit_record_keys": ("record_id", "stream_id", "number", "observed_ns", "versioned_job", "target_version"),
    "jobs": (
        *("job_id", "tenant_id", "template", "status", "version", "created_by", "created_ns", "not_before_ns"),
        "document",
    ),
    "job_versions": ("job_id", "version", "status", "record_id", "document_sha256"),
    "job_runs": ("job_id", "number", "status", "worker_id", "document", "lease_until_ns"),
}
