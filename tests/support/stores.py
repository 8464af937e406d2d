"""What the real stores of tests share, whatever database they are on."""

import itertools
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from opentelemetry.sdk.resources import Resource

from service.jobs.model import Job, JobId, Status, TenantId
from service.ports import Transaction, Transition, Work, Write
from service.secrets import DeploymentSecret
from service.store.streams import StreamSettings
from service.store.writing import LedgerTransaction
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.otlp import otlp_json, resource_logs_bytes
from telemetry.audit.record import Actor, AuditRecord, Result, Target, audit_record
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Report, read_copy, verify
from tests.support.catalogue import SPAN
from tests.support.ledger_maker import KEY

SECRET = DeploymentSecret(b"s" * 32)


def secret_file(folder: Path) -> Path:
    """Return the file of that secret, made when it is not there, for commands."""
    file = folder / "ledger.secret"
    file.touch(mode=0o600)
    file.write_bytes(b"s" * 32)
    return file


class LedgerStore(ABC):
    """One process's view of a ledger: lanes, reads and outbox on the same database."""

    reads: Any
    all_records: ClassVar[str]
    """The store's statement for every record with its envelope."""

    def __init__(self, folder: Path, clock: Callable[[], int], ids: Iterator[str], instance: int) -> None:
        """View it as another process than every other `instance` does; `ids` are those of its records."""
        self.folder = folder
        self.clock: Any = clock
        self.ids = ids
        self.audit_log = AuditLogger(Resource({names.SERVICE_NAME: "auditrace"}), "0.1.0")
        self.committed: list[str] = []
        self._instance = instance
        self._stream_ids = itertools.count(1 + instance * 1_000_000)
        self._relay_numbers = itertools.count()
        self._lanes: list[Any] = []
        self._writers: list[Any] = []
        self._replays: list[Any] = []
        self._relays: dict[Any, Any] = {}
        self._owners: dict[Any, Any] = {}
        self._webhooks: list[Any] = []

    @abstractmethod
    def rows(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database; placeholders are question marks."""

    @abstractmethod
    def kill_relay(self, outbox: Any) -> None:
        """Let a relay's process end at once, and close its outbox."""

    @abstractmethod
    def kill_webhooks(self, webhooks: Any) -> None:
        """Let a process that delivers webhooks end at once, and close its outbox."""

    def _lane_owner(self, owner: str) -> str:
        return f"{owner}-{self._instance}-{len(self._lanes)}"

    def _relay_owner(self, owner: str) -> str:
        return f"{owner}-{self._instance}-{next(self._relay_numbers)}"

    def _stream_settings(self, owner: str, on_commit: Callable[[Sequence[str]], None] | None) -> StreamSettings:
        return StreamSettings(
            audit_log=self.audit_log,
            secret=SECRET,
            clock=self.clock,
            new_stream_id=lambda: str(uuid.UUID(int=next(self._stream_ids), version=4)),
            owner=owner,
            system_record=self.system_record,
            operator_record=self.system_record,
            on_commit=on_commit or self.committed.extend,
        )

    def _opened_writer(self, kind: Callable[..., Any], lane: Any, signers: Sequence[Signer], find: Any) -> Any:
        held = signers or (Signer(KEY),)
        writer = kind(lane, find or (lambda wanted: next((one for one in held if one.fingerprint == wanted), None)))
        writer.register(held[0])
        self._writers.append(writer)
        return writer

    def waiting(self, lane: Any) -> int:
        """Return how many works wait for a lane."""
        return len(lane._queue._entries)

    def _close_opened(self) -> None:
        # Reads first: a connection that only reads cannot empty SQLite's write-ahead log when it is the last.
        for one in (self.reads, *self._lanes, *self._writers, *self._replays):
            one.close()
        for webhooks in list(self._webhooks):
            self.kill_webhooks(webhooks)
        for outbox in list(self._relays):
            self.kill_relay(outbox)

    def archive(self) -> Sequence[str]:
        """Return every committed record as a line of OTLP JSON, as a complete sink would hold it."""
        return [
            otlp_json(resource_logs_bytes(resource, scope, [otlp])).decode()
            for _, _, otlp, resource, scope in self.rows(self.all_records)
        ]

    def verify(self, *keys: Ed25519PublicKey) -> Report:
        """Verify a complete copy with the public key alone, as somebody outside of the service would."""
        copy = self.folder / "copy.otlp.jsonl"
        copy.write_text("".join(f"{line}\n" for line in self.archive()))
        return verify(read_copy([copy]), public_keys=keys or [KEY.public_key()])

    def system_record(self, event_name: str) -> AuditRecord:
        """Return a record of the ledger itself."""
        return self.record(event_name, target=Target("ledger", "auditrace"))

    def record(
        self,
        event_name: str = names.EVENT_JOB_CREATE,
        target: Target | None = None,
        result: Result = Result.SUCCESS,
        more: Mapping[str, Value | None] | None = None,
    ) -> AuditRecord:
        """Return a record that is ready to be saved."""
        return audit_record(
            record_id=next(self.ids),
            event_name=event_name,
            timestamp_ns=self.clock(),
            span=SPAN,
            actor=Actor("alice", "user", "key"),
            result=result,
            target=target or Target("job", "job-1"),
            tenant_id="default",
            source="api",
            more=more,
        )

    def fact(self) -> Transition:
        """Return a transition that records something and changes no job."""
        return Transition(record=self.record())

    def transition(self, job: Job, writes: tuple[Write, ...] = ()) -> Transition:
        """Return the transition that writes this version of a job."""
        target = Target("job", job.job_id, job.version)
        return Transition(record=self.record(target=target), job=job, writes=writes)


def new_job(job_id: str = "job-1", status: Status = Status.CREATED, version: int = 1) -> Job:
    """Return a job of the default tenant."""
    return Job(
        job_id=JobId(job_id),
        tenant_id=TenantId("default"),
        template="line-count",
        parameters={"path": "/etc/hosts"},
        status=status,
        version=version,
        created_by="alice",
        created_ns=1,
        updated_ns=1,
        trace_id=SPAN.trace_id,
    )


def connection_of(transaction: LedgerTransaction) -> Any:
    """Return the driver's connection of an open transaction, to do there what the store never does."""
    rows: Any = transaction.execute("key_uses", {})
    return rows.connection


def queued_as_group(lane: Any, *works: Work[Any]) -> list[Future[Any]]:
    """Queue works while the lane is held up, so that they are committed as one group."""
    started, go = threading.Event(), threading.Event()

    def hold(_: Transaction) -> None:
        started.set()
        go.wait()

    lane.submit(hold)
    started.wait()
    futures = [lane.submit(work) for work in works]
    go.set()
    return futures
