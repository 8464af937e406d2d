"""Real stores for tests: one database file a test, made by the migrations."""

import itertools
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from opentelemetry.sdk.resources import Resource

from service.jobs.model import Job, JobId, Status, TenantId
from service.ports import RegisteredKey, Transition, Write
from service.secrets import DeploymentSecret
from service.store.opening import keys_of
from service.store.sqlite.checkpoints import SqliteCheckpoints
from service.store.sqlite.connection import connect, create
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.migrate import migrate
from service.store.sqlite.outbox import SqliteOutbox, SqliteReplays
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.reads import SqliteReads
from service.store.sqlite.statements import SQL, executing
from service.store.sqlite.untouched import in_use
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
from tests.support.ids import ManualClock, record_ids
from tests.support.ledger_maker import KEY

SECRET = DeploymentSecret(b"s" * 32)


class SqliteStore:
    """One process's view of a SQLite ledger: lanes, reads and outbox on the same file."""

    kind: ClassVar[str] = "sqlite"
    refusal: ClassVar[type[Exception]] = sqlite3.IntegrityError
    stream_columns: ClassVar[str] = ""
    """What only this store has in its streams."""

    def __init__(self, folder: Path, clock: Callable[[], int] | None = None, instance: int = 0) -> None:
        """Open or make the ledger in `folder`; another process on the same one is another `instance`."""
        self._instance = instance
        self.path = folder / "ledger.db"
        self.clock = clock or ManualClock()
        # Never the same for two instances on one folder.
        self.ids = record_ids((uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).int + instance) % 4096)
        self.audit_log = AuditLogger(Resource({names.SERVICE_NAME: "auditrace"}), "0.1.0")
        self.committed: list[str] = []
        self._stream_ids = itertools.count(1 + instance * 1_000_000)
        create(self.path)
        connection = connect(self.path)
        migrate(connection)
        connection.close()
        self.reads = SqliteReads(self.path)
        self._lanes: list[SqliteLane] = []
        self._owners: dict[SqliteLane, OwnerLocks] = {}
        self._writers: list[SqliteCheckpoints] = []
        self._relays: dict[SqliteOutbox, OwnerLocks] = {}
        self._relay_numbers = itertools.count()
        self._replays: list[SqliteReplays] = []

    @property
    def database(self) -> str:
        """The ledger as settings and commands name it."""
        return f"sqlite:///{self.path}"

    def beside(self, instance: int) -> "SqliteStore":
        """Open the same ledger as another process."""
        return SqliteStore(self.path.parent, self.clock, instance)

    def lane(self, owner: str = "test", on_commit: Callable[[Sequence[str]], None] | None = None) -> SqliteLane:
        """Open a lane, as a process of its own would."""
        locks = OwnerLocks(self.path, f"{owner}-{self._instance}-{len(self._lanes)}")
        settings = StreamSettings(
            audit_log=self.audit_log,
            secret=SECRET,
            clock=self.clock,
            new_stream_id=lambda: str(uuid.UUID(int=next(self._stream_ids), version=4)),
            owner=locks.owner,
            system_record=self.system_record,
            on_commit=on_commit or self.committed.extend,
        )
        lane = SqliteLane(settings, self.path, locks)
        self._lanes.append(lane)
        self._owners[lane] = locks
        return lane

    def checkpoints(
        self, lane: SqliteLane, *signers: Signer, find: Callable[[str], Signer | None] | None = None
    ) -> SqliteCheckpoints:
        """Open the checkpoint writer of a lane's process, with these private keys, or those that `find` finds."""
        held = signers or (Signer(KEY),)
        writer = SqliteCheckpoints(
            lane, find or (lambda wanted: next((one for one in held if one.fingerprint == wanted), None))
        )
        writer.register(held[0])
        self._writers.append(writer)
        return writer

    def locks(self, lane: SqliteLane) -> OwnerLocks:
        """Return the locks that a lane's process holds."""
        return self._owners[lane]

    def waiting(self, lane: SqliteLane) -> int:
        """Return how many works wait for a lane."""
        return len(lane._queue._entries)

    def kill(self, lane: SqliteLane) -> None:
        """Let the kernel drop the lock of a lane's process, as it does when a process dies without a word."""
        self._owners.pop(lane).release()

    def system_record(self, event_name: str) -> AuditRecord:
        """Return a record of the ledger itself."""
        return self.record(event_name, target=Target("ledger", "auditrace"))

    def outbox(self, owner: str = "relay") -> SqliteOutbox:
        """Open the outbox, as the relay of a process of its own would."""
        locks = OwnerLocks(self.path, f"{owner}-{self._instance}-{next(self._relay_numbers)}")
        outbox = SqliteOutbox(self.path, locks, self.clock)
        self._relays[outbox] = locks
        return outbox

    def replays(self, sink: str = "new") -> SqliteReplays:
        """Open what was delivered, for a sink of this name."""
        replays = SqliteReplays(self.path, sink)
        self._replays.append(replays)
        return replays

    def kill_relay(self, outbox: SqliteOutbox) -> None:
        """Let the kernel drop the lock of a relay's process, as it does when a process dies without a word."""
        self._relays.pop(outbox).release()
        outbox.close()

    def close(self) -> None:
        """Close what was opened; may be called again."""
        for lane in self._lanes:
            lane.close()
        self.reads.close()
        for writer in self._writers:
            writer.close()
        for replays in self._replays:
            replays.close()
        for outbox in list(self._relays):
            self.kill_relay(outbox)
        while self._owners:
            self._owners.popitem()[1].release()

    def archive(self) -> Sequence[str]:
        """Return every committed record as a line of OTLP JSON, as a complete sink would hold it."""
        scope = self.audit_log.scope_bytes
        return [
            otlp_json(resource_logs_bytes(resource, scope, [otlp])).decode()
            for _, _, otlp, resource, _ in self.rows(SQL["all_records"])
        ]

    def verify(self, *keys: Ed25519PublicKey) -> Report:
        """Return what a stranger finds who holds a complete copy and the public key."""
        copy = self.path.with_name("copy.otlp.jsonl")
        copy.write_text("".join(f"{line}\n" for line in self.archive()))
        return verify(read_copy([copy]), public_keys=keys or [KEY.public_key()])

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
            actor=Actor("alice", "user"),
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

    def execute(self, sql: str, *values: object) -> None:
        """Write straight to the file, past the lanes; what the file refuses raises `refusal`."""
        with closing(connect(self.path)) as connection:
            connection.execute(sql, values)

    @contextmanager
    def attacking(self) -> Iterator[sqlite3.Connection]:
        """Open the file as somebody does whom no trigger and no foreign key holds back."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            yield connection

    def keys_of(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the registered keys, as a process that has this ledger secret reads them."""
        with in_use(self.path) as connection:
            return keys_of(executing(connection), secret)

    def rows(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read straight from the file."""
        connection = connect(self.path, read_only=True)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()


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
    rows: Any = transaction.execute("keys", {})
    return rows.connection
