"""The open transaction of a lane, on every database: what work may read, and the one way in which it writes."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from service.errors import ConflictError, FencedError, NotFoundError
from service.jobs.model import Content, Job, Run, TenantId
from service.ports import (
    ApiKey,
    Clock,
    EndRun,
    IdempotencyEntry,
    PutArtifact,
    PutIdempotencyEntry,
    PutInput,
    PutKey,
    PutKeySecret,
    PutSecrets,
    Receipt,
    RevokeKey,
    StartRun,
    StoredConfiguration,
    Transition,
    Write,
)
from service.store.configurations import last_configuration, put_configuration
from service.store.queries import Execute, one
from service.store.rows import NAMED, WITH_ID, decode_job, decode_run, encode, entry_of, key_of, run_values
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger, SealedRecord
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import Signer


class OvertakenError(Exception):
    """Another transaction has just committed what this work was about to do; the work must run again."""


class Position(msgspec.Struct, frozen=True):
    """Where the next record goes: the tip before it, the audit logger, and the stored row of resource and scope."""

    tip: Tip
    audit_log: AuditLogger
    envelope_id: int


def behind(execute: Execute, tip: Tip, audit_log: AuditLogger) -> Position:
    """Return the position behind `tip`; the resource and scope of `audit_log` are stored if they are new."""
    envelope = {"resource": audit_log.resource_bytes, "scope": audit_log.scope_bytes}
    row = one(execute("envelope", envelope)) or one(execute("add_envelope", envelope))
    if row is None:
        raise AssertionError("a stored envelope has an id")
    return Position(tip, audit_log, int(row[0]))


class LedgerTransaction(ABC):
    """Implements `service.ports.Transaction` with the named statements of a store; its lane commits it."""

    violation: ClassVar[type[Exception]]
    """The driver's error for a row that a constraint refuses."""
    nul_as: ClassVar[str] = "\0"
    """What columns hold for NUL, which a body can hold."""
    locking_job = "job"
    """The statement that reads a job, and keeps other transactions from changing it until this one ends."""

    def __init__(self, execute: Execute, clock: Clock, position: Position, now_ns: int) -> None:
        """Continue behind `position`; the transaction began at `now_ns`, by the clock that decides about leases."""
        self.execute = execute
        self.position = position
        self.now_ns = now_ns
        self.outcomes: list[str] = []
        self._clock = clock

    @property
    def tip(self) -> Tip:
        """The last record of the stream, including the records of this transaction."""
        return self.position.tip

    def wait_for_jobs(self, *, is_patient: bool) -> None:
        """Let `job` wait for a job that another transaction locks, or fail at once; no effect with a single writer."""
        del is_patient

    def rewind(self, position: Position) -> None:
        """Forget the records sealed behind `position`, after their rows were rolled back."""
        del self.outcomes[len(self.outcomes) - (self.tip.number - position.tip.number) :]
        self.position = position

    def certify(self, fingerprint: str) -> None:
        """From here on, name this key in the resource of sealed records, as the key that signs over them."""
        audit_log = self.position.audit_log.certified(fingerprint)
        if audit_log is not self.position.audit_log:
            self.position = behind(self.execute, self.tip, audit_log)

    def time_ns(self) -> int:
        """Return the time by the clock that decides about leases; here, when the transaction began."""
        return self.now_ns

    def observe_ns(self) -> int:
        """Return the time of sealing; it increases within a stream."""
        return max(self.time_ns(), self.tip.observed_ns + 1)

    def append(self, sealed: SealedRecord) -> None:
        """Write a sealed record.

        Raises:
            FencedError: another writer wrote a record at this place of the stream.
        """
        # The columns are for searching.
        text = {
            key: value.replace("\0", self.nul_as) for key, value in sealed.attributes.items() if isinstance(value, str)
        }
        version = sealed.attributes.get(names.AUDITRACE_TARGET_VERSION)
        is_job_version = version is not None and text[names.AUDIT_TARGET_TYPE] == "job"
        self._add_record(
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
                "envelope_id": self.position.envelope_id,
            },
        )
        self.position = msgspec.structs.replace(self.position, tip=sealed.tip)
        self.outcomes.append(text[names.AUDIT_OUTCOME])

    def save(self, transition: Transition) -> Receipt:
        """Write the changed job with what belongs to it, and seal the record; all of this is committed, or nothing."""
        if transition.job is not None:
            self._save_job(transition.job, transition.record.record_id)
        for write in transition.writes:
            self._write(write, transition)
        tip = self.position.audit_log.emit(transition.record, self).tip
        return Receipt(tip.record_id, tip.stream_id, tip.number, tip.hash)

    def save_signed(self, record: AuditRecord, signer: Signer) -> SealedRecord:
        """Seal a record of an event that is signed, and return it with its signature."""
        return self.position.audit_log.emit(record, self, signer)

    def job(self, job_id: str, tenant_id: TenantId | None) -> Job | None:
        """Return the job as this transaction sees it; other transactions cannot change it until this one ends."""
        row = one(self.execute(self.locking_job, {"job_id": job_id, "tenant_id": tenant_id}))
        return decode_job(row[0]) if row else None

    def run(self, job_id: str, number: int) -> Run | None:
        """Return one run of a job."""
        row = one(self.execute("run", {"job_id": job_id, "number": number}))
        return decode_run(row[0]) if row else None

    def inputs(self, job_id: str) -> Sequence[Content]:
        """Return the job's inputs, ordered by name."""
        return [Content(*row) for row in self.execute("inputs", {"job_id": job_id})]

    def next_runnable(self, now_ns: int, max_bytes: int | None = None) -> Job | None:
        """Return the next queued job; tenants take turns, and jobs that other lanes are claiming are left out."""
        row = one(self.execute("next_runnable", {"now_ns": now_ns, "max_bytes": max_bytes}))
        return decode_job(row[0]) if row else None

    def expired_run(self, now_ns: int) -> Run | None:
        """Return a running run whose lease has ended, or whose worker is known to be dead.

        Runs that other lanes are closing are left out.
        """
        now_ns = self._by_lease_clock(now_ns)
        for document, worker_id, lease_until_ns in self.execute("leased_runs", {"now_ns": now_ns}):
            if lease_until_ns < now_ns or not self._is_alive(worker_id):
                return decode_run(document)
        return None

    def renew_lease(self, job_id: str, run: int, worker_id: str, until_ns: int) -> bool:
        """Extend the lease; False if this worker no longer holds it, or the job was cancelled."""
        values = {"job_id": job_id, "run": run, "worker_id": worker_id, "until_ns": self._by_lease_clock(until_ns)}
        return one(self.execute("renew_lease", values)) is not None

    def remembered(self, tenant_id: TenantId, actor_id: str, route: str, key_sha256: str) -> IdempotencyEntry | None:
        """Return what was done under this idempotency key, if it has not expired."""
        key = {"tenant_id": tenant_id, "actor_id": actor_id, "route": route, "key_sha256": key_sha256}
        row = one(self.execute("remembered", {**key, "now_ns": self._clock()}))
        return entry_of(row) if row else None

    def key_named(self, tenant_id: TenantId, name: str) -> ApiKey | None:
        """Return the API key with this name, also a revoked one."""
        row = one(self.execute("api_keys", {"tenant_id": tenant_id, "name": name}, NAMED))
        return key_of(row) if row else None

    def key(self, key_id: str) -> ApiKey | None:
        """Return the API key with this id, also a revoked one."""
        row = one(self.execute("api_keys", {"key_id": key_id}, WITH_ID))
        return key_of(row) if row else None

    def one_changes_keys(self) -> None:
        """Let transactions that change API keys run one after another."""
        # A statement of its own: the next one sees what the transaction before has committed.
        self.execute("lock_keys", {})

    def keys(self) -> Sequence[ApiKey]:
        """Return all API keys, also revoked ones; no other transaction makes one until this one ends."""
        self.one_changes_keys()
        return [key_of(row) for row in self.execute("api_keys", {}, ())]

    def note_use(self, key_id: str, used_ns: int) -> None:
        """Store when an API key was used, unless a later use is stored already."""
        self.execute("note_use", {"key_id": key_id, "used_ns": used_ns})

    def one_configures(self) -> None:
        """Let transactions that read and store configurations run one after another; they also wait for checkpoints."""
        self.execute("one_at_a_time", {})

    def configuration(
        self, *, source: str | None = None, host: str | None = None, delivers: bool = False, below: int | None = None
    ) -> StoredConfiguration | None:
        """Return the newest stored configuration that is as asked for."""
        return last_configuration(self.execute, source=source, host=host, delivers=delivers, below=below)

    def put_configuration(self, stored: StoredConfiguration) -> None:
        """Store a configuration behind the newest one."""
        put_configuration(self.execute, stored)

    def _add_record(self, values: Mapping[str, object]) -> None:
        """Insert the row of a record.

        Raises:
            FencedError: the stream already has a record of this number.
        """
        try:
            self.execute("add_record", values)
        except self.violation as error:
            if not self._is_number_taken(error, values):
                raise
            raise FencedError(f"record {values['number']} of the stream was written by somebody else") from error

    @abstractmethod
    def _is_number_taken(self, error: Exception, values: Mapping[str, object]) -> bool:
        """Tell whether a record was refused because its stream already has a record of this number."""

    def _is_alive(self, worker_id: str) -> bool:
        """Tell whether a worker may be alive; False only if it is known to be dead."""
        del worker_id
        return True

    def _by_lease_clock(self, time_ns: int) -> int:
        """Return a time of this machine's clock as a time of the clock that decides about leases."""
        return time_ns

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
        if one(self.execute("add_job" if job.version == 1 else "change_job", values)) is None:
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
                until_ns = self._by_lease_clock(lease_until_ns)
                self.execute("start_run", {**run_values(run), "lease_until_ns": until_ns})
                self.execute("take_turn", {"job_id": run.job_id, "started_ns": run.started_ns})
            case EndRun(run):
                if one(self.execute("end_run", run_values(run))) is None:
                    raise ConflictError("the run has ended already")
            case PutKey(key):
                values = {**msgspec.structs.asdict(key), "roles": " ".join(key.roles)}
                del values["revoked_ns"], values["secret"]
                self.execute("put_key", values)
                self._put_secret(key)
            case PutKeySecret(key):
                self._put_secret(key)
            case RevokeKey(key_id, revoked_ns):
                if one(self.execute("revoke_key", {"key_id": key_id, "revoked_ns": revoked_ns})) is None:
                    raise NotFoundError("there is no such key, or it is revoked already")
            case PutIdempotencyEntry(entry):
                values = {**msgspec.structs.asdict(entry), "now_ns": self._clock()}
                if one(self.execute("remember", values)) is None:
                    raise OvertakenError

    def _put_secret(self, key: ApiKey) -> None:
        if key.secret is not None:
            self.execute("put_key_secret", {"key_id": key.key_id, **msgspec.structs.asdict(key.secret)})
