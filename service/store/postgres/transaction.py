"""One open transaction of a lane: what work may read, and the one way in which it writes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from service.errors import BrokenLedgerError, ConflictError, FencedError, NotFoundError
from service.jobs.model import Content, Job, JobId, Run, TenantId
from service.ports import (
    ApiKey,
    Clock,
    EndRun,
    IdempotencyEntry,
    PutArtifact,
    PutInput,
    PutKey,
    PutSecrets,
    Receipt,
    Remember,
    RevokeKey,
    StartRun,
    Transition,
    Write,
)
from service.store.postgres.connection import Session
from service.store.postgres.statements import SQL, executing
from service.store.queries import Execute
from service.store.rows import decode_job, decode_run, encode, key_of
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger, SealedRecord
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import SIGNED_EVENTS, Signer


class OvertakenError(Exception):
    """Another transaction did meanwhile what this work found undone; the work is to be done again."""


class Place(msgspec.Struct, frozen=True):
    """Where the next record goes: behind which tip, through which log, into which stored resource and scope."""

    tip: Tip
    audit_log: AuditLogger
    envelope_id: int


def place_behind(session: Session, tip: Tip, audit_log: AuditLogger) -> Place:
    """Return the place behind `tip`, with the envelope of `audit_log` stored if it is new."""
    envelope = {"resource": audit_log.resource_bytes, "scope": audit_log.scope_bytes}
    rows = session.execute(SQL["envelope"], envelope).fetchall()
    ((envelope_id,),) = rows or session.execute(SQL["add_envelope"], envelope).fetchall()
    return Place(tip, audit_log, int(envelope_id))


class PostgresTransaction:
    """Implements `service.ports.Transaction` on a session that has begun; the lane commits it.

    A job that was read is locked until the end, so that what work decides by it still holds when it writes.
    """

    def __init__(self, session: Session, clock: Clock, place: Place, now_ns: int) -> None:
        """Work on `session`, in a transaction that began at `now_ns` by the database's clock."""
        self._session = session
        self._clock = clock
        self.place = place
        self.now_ns = now_ns
        self.is_patient = False
        self._signer: Signer | None = None
        self._signature = ""
        self.outcomes: list[str] = []

    @property
    def tip(self) -> Tip:
        """The last record of the stream, those of this transaction included."""
        return self.place.tip

    def execute(self, name: str, values: Mapping[str, object] | None = None) -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute a statement, for the parts of this store; the transaction is not theirs to commit."""
        return self._session.execute(SQL[name], values)

    @property
    def executing(self) -> Execute:
        """What executes statements here, for the parts that both stores share."""
        return executing(self._session)

    def rewind(self, place: Place) -> None:
        """Forget what was sealed from `place` on, after its rows were rolled back."""
        del self.outcomes[len(self.outcomes) - (self.tip.number - place.tip.number) :]
        self.place = place

    def certify(self, fingerprint: str) -> None:
        """Name this key in the resource of what is sealed from here on, as the one that signs over it."""
        audit_log = self.place.audit_log.certified(fingerprint)
        if audit_log is not self.place.audit_log:
            self.place = place_behind(self._session, self.tip, audit_log)

    def observe_ns(self) -> int:
        """Return the time of sealing: when the transaction began; within a stream it increases with each record."""
        return max(self.now_ns, self.tip.observed_ns + 1)

    def signature(self, event_name: str, body: bytes) -> str | None:
        """Return the signature over a body of an event that is signed."""
        if event_name not in SIGNED_EVENTS:
            return None
        if self._signer is None:
            raise BrokenLedgerError(f"a record of {event_name} must be signed, and no key was given")
        self._signature = self._signer.sign(body)
        return self._signature

    def append(self, sealed: SealedRecord) -> None:
        """Write a sealed record.

        Raises:
            FencedError: somebody else wrote a record at this place of the stream.
        """
        # The columns are for finding a record and cannot hold NUL, which a body can.
        text = {
            key: value.replace("\0", "\ufffd") for key, value in sealed.attributes.items() if isinstance(value, str)
        }
        version = sealed.attributes.get(names.AUDITRACE_TARGET_VERSION)
        is_job_version = version is not None and text[names.AUDIT_TARGET_TYPE] == "job"
        try:
            self.execute(
                "add_record",
                {
                    "record_id": sealed.tip.record_id,
                    "stream_id": sealed.tip.stream_id,
                    "number": sealed.tip.number,
                    "hash": sealed.tip.hash,
                    "event_name": sealed.event_name,
                    "timestamp_ns": sealed.timestamp_ns,
                    "observed_ns": sealed.tip.observed_ns,
                    "tenant_id": text[names.AUDITRACE_TENANT_ID],
                    "actor_id": text[names.AUDIT_ACTOR_ID],
                    "action": text[names.AUDIT_ACTION],
                    "outcome": text[names.AUDIT_OUTCOME],
                    "result": text[names.AUDITRACE_RESULT],
                    "target_type": text[names.AUDIT_TARGET_TYPE],
                    "target_id": text[names.AUDIT_TARGET_ID],
                    "target_version": version,
                    "versioned_job": text[names.AUDIT_TARGET_ID] if is_job_version else None,
                    "job_id": text.get(names.AUDITRACE_JOB_ID),
                    "request_id": text.get(names.AUDITRACE_REQUEST_ID),
                    "trace_id": sealed.span.trace_id,
                    "span_id": sealed.span.span_id,
                    "body": sealed.body.decode(),
                    "otlp": sealed.otlp,
                    "envelope_id": self.place.envelope_id,
                },
            )
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name == "audit_record_keys_pkey":
                raise
            raise FencedError(f"record {sealed.tip.number} of the stream was written by somebody else") from error
        self.place = Place(sealed.tip, self.place.audit_log, self.place.envelope_id)
        self.outcomes.append(text[names.AUDIT_OUTCOME])

    def save(self, transition: Transition) -> Receipt:
        """Write the changed job and what belongs to it, and seal the record; all of it or nothing is committed."""
        if transition.job is not None:
            self._save_job(transition.job, transition.record.record_id)
        for write in transition.writes:
            self._write(write, transition)
        self.place.audit_log.emit(transition.record, self)
        return Receipt(self.tip.record_id, self.tip.stream_id, self.tip.number, self.tip.hash)

    def save_signed(self, record: AuditRecord, signer: Signer) -> str:
        """Seal a record of an event that is signed, and return its signature."""
        self._signer = signer
        try:
            self.place.audit_log.emit(record, self)
        finally:
            self._signer = None
        return self._signature

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the job as this transaction sees it, and keep others from changing it."""
        statement = "awaited_job" if self.is_patient else "locked_job"
        row = self.execute(statement, {"job_id": job_id, "tenant_id": tenant_id}).fetchone()
        return decode_job(row[0]) if row else None

    def run(self, job_id: str, number: int) -> Run | None:
        """Return one run of a job."""
        row = self.execute("run", {"job_id": job_id, "number": number}).fetchone()
        return decode_run(row[0]) if row else None

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the job's inputs, ordered by name."""
        return [Content(*row) for row in self.execute("inputs", {"job_id": job_id})]

    def next_runnable(self, now_ns: int) -> Job | None:
        """Return the queued job whose turn it is, tenants taking turns; those that other lanes claim are left out."""
        row = self.execute("next_runnable", {"now_ns": now_ns}).fetchone()
        return decode_job(row[0]) if row else None

    def expired_run(self, now_ns: int) -> Run | None:
        """Return a running run whose lease has ended; those that other lanes close are left out."""
        row = self.execute("expired_run", {"now_ns": self._of_ledger(now_ns)}).fetchone()
        return decode_run(row[0]) if row else None

    def renew_lease(self, job_id: str, run: int, worker_id: str, until_ns: int) -> bool:
        """Extend the lease; False when this worker does not hold it any more, or the job was cancelled."""
        values = {"job_id": job_id, "run": run, "worker_id": worker_id, "until_ns": self._of_ledger(until_ns)}
        return self.execute("renew_lease", values).rowcount == 1

    def remembered(self, tenant_id: TenantId, actor_id: str, route: str, key_sha256: str) -> IdempotencyEntry | None:
        """Return what was done under this idempotency key, if it has not expired."""
        key = {"tenant_id": tenant_id, "actor_id": actor_id, "route": route, "key_sha256": key_sha256}
        row = self.execute("remembered", {**key, "now_ns": self._clock()}).fetchone()
        if row is None:
            return None
        tenant, actor, path, of_key, of_body, job_id, expires_ns = row
        return IdempotencyEntry(
            tenant_id=TenantId(tenant),
            actor_id=actor,
            route=path,
            key_sha256=of_key,
            body_sha256=of_body,
            job_id=JobId(job_id),
            expires_ns=expires_ns,
        )

    def key_named(self, tenant_id: TenantId, name: str) -> ApiKey | None:
        """Return the key of this name, revoked ones included."""
        row = self.execute("key_named", {"tenant_id": tenant_id, "name": name}).fetchone()
        return key_of(row) if row else None

    def note_use(self, key_id: str, used_ns: int) -> None:
        """Note that an API key was used; a later use that was noted stands."""
        self.execute("note_use", {"key_id": key_id, "used_ns": used_ns})

    def has_keys(self) -> bool:
        """True when at least one API key exists, revoked ones included."""
        return self.execute("keys").fetchone() is not None

    def _of_ledger(self, time_ns: int) -> int:
        """Return a time by this machine's clock as one by the database's, by which all machines judge leases."""
        return self.now_ns + (time_ns - self._clock())

    def _save_job(self, job: Job, record_id: str) -> None:
        document = encode(job)
        values = {
            "job_id": job.job_id,
            "tenant_id": job.tenant_id,
            "template": job.template,
            "status": job.status.value,
            "version": job.version,
            "created_by": job.created_by,
            "created_ns": job.created_ns,
            "not_before_ns": job.not_before_ns,
            "document": document,
            "record_id": record_id,
            "document_sha256": hashlib.sha256(document.encode()).hexdigest(),
        }
        if self.execute("add_job" if job.version == 1 else "change_job", values).rowcount != 1:
            raise ConflictError("the job was changed at the same time: fetch it and try again")

    def _write(self, write: Write, transition: Transition) -> None:
        job_id = transition.job.job_id if transition.job else ""
        match write:
            case PutInput(content, payload):
                self.execute("put_input", {"job_id": job_id, **msgspec.structs.asdict(content), "payload": payload})
            case PutArtifact(run, content, payload):
                values = {"run": run.number, **msgspec.structs.asdict(content), "payload": payload}
                self.execute("put_artifact", {"job_id": run.job_id, **values})
            case PutSecrets(ciphertexts):
                for name, ciphertext in ciphertexts.items():
                    self.execute("put_secret", {"job_id": job_id, "name": name, "ciphertext": ciphertext})
            case StartRun(run, lease_until_ns):
                self.execute("start_run", {**_run_values(run), "lease_until_ns": self._of_ledger(lease_until_ns)})
                self.execute("take_turn", {"job_id": run.job_id, "started_ns": run.started_ns})
            case EndRun(run):
                if self.execute("end_run", _run_values(run)).rowcount != 1:
                    raise ConflictError("the run has ended already")
            case PutKey(key):
                values = {**msgspec.structs.asdict(key), "roles": " ".join(key.roles)}
                values.pop("revoked_ns")
                self.execute("put_key", values)
            case RevokeKey(key_id, revoked_ns):
                if self.execute("revoke_key", {"key_id": key_id, "revoked_ns": revoked_ns}).rowcount != 1:
                    raise NotFoundError("there is no such key, or it is revoked already")
            case Remember(entry):
                values = {**msgspec.structs.asdict(entry), "now_ns": self._clock()}
                if self.execute("remember", values).rowcount != 1:
                    raise OvertakenError


def _run_values(run: Run) -> dict[str, object]:
    return {
        "job_id": run.job_id,
        "number": run.number,
        "status": run.status.value,
        "worker_id": run.worker_id,
        "document": encode(run),
    }
