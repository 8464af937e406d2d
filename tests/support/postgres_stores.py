"""Real PostgreSQL stores for tests: one database a test, with a clock that the test controls."""

import itertools
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from opentelemetry.sdk.resources import Resource

from service.jobs.model import Job
from service.ports import RegisteredKey, Transition, Write
from service.secrets import DeploymentSecret
from service.store.opening import keys_of
from service.store.postgres.checkpoints import PostgresCheckpoints
from service.store.postgres.connection import connect
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.opening import read as read_database
from service.store.postgres.outbox import PostgresOutbox, PostgresReplays
from service.store.postgres.reads import PostgresReads
from service.store.postgres.statements import SQL
from service.store.streams import StreamSettings
from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.otlp import otlp_json, resource_logs_bytes
from telemetry.audit.record import Actor, AuditRecord, Result, Target, audit_record
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Report, read_copy, verify
from tests.support.catalogue import SPAN
from tests.support.ids import record_ids
from tests.support.ledger_maker import KEY
from tests.support.postgres import PostgresServer
from tests.support.stores import SECRET

_CLOCK = """
CREATE SEQUENCE test_clock MINVALUE 0;
SELECT setval('test_clock', {start_us});
CREATE OR REPLACE FUNCTION ledger_now_ns() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT ({now_us}) * 1000 FROM test_clock $$;
"""


class LedgerClock:
    """A clock that database and test share; moves by a microsecond a reading here, and as far as a test says."""

    def __init__(self, url: str, start_ns: int = 1_767_323_045_000_000_000) -> None:
        # A sequence, because what it holds is seen at once by all transactions.
        self._session = connect(url)
        self._session.execute(_CLOCK.format(start_us=start_ns // 1000, now_us="last_value").encode())

    def __call__(self) -> int:
        """Return nanoseconds since the epoch."""
        ((now_us,),) = self._session.execute("SELECT nextval('test_clock')").fetchall()
        return int(now_us) * 1000

    def advance(self, seconds: float) -> None:
        """Step the clock, back if negative."""
        by_us = int(seconds * 1e6)
        self._session.execute("SELECT setval('test_clock', last_value + %s) FROM test_clock", [by_us])

    @property
    def now_ns(self) -> int:
        """The time that it shows, without moving it."""
        ((now_us,),) = self._session.execute("SELECT last_value FROM test_clock").fetchall()
        return int(now_us) * 1000

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class RunningLedgerClock:
    """A clock that database and test share, which passes as time does; a test makes it jump ahead."""

    def __init__(self, url: str) -> None:
        self._session = connect(url)
        passing = "last_value + (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        self._session.execute(_CLOCK.format(start_us=0, now_us=passing).encode())
        self._offset_ns = 0
        self._last_ns = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Return nanoseconds since the epoch, never the same twice."""
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns() + self._offset_ns)  # noqa: TID251 - the database's own clock
            return self._last_ns

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        with self._lock:
            self._offset_ns += int(seconds * 1e6) * 1000
            self._session.execute("SELECT setval('test_clock', %s)", [self._offset_ns // 1000])

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class _Elsewhere(msgspec.Struct, frozen=True):
    """A ledger that is run by others, on the machine's clock."""

    url: str
    clock: Callable[[], int] = time.time_ns  # noqa: TID251 - a process of its own


class Owner(msgspec.Struct, frozen=True):
    """The name of a process, and a descriptor for its children, as SQLite's lock of an owner has them."""

    owner: str
    descriptor: int


class PostgresStore:
    """One process's view of a PostgreSQL ledger: lanes, reads and outbox on the same database."""

    kind: ClassVar[str] = "postgres"
    refusal: ClassVar[type[Exception]] = psycopg.IntegrityError
    stream_columns: ClassVar[str] = "session, "
    """What only this store has in its streams."""

    def __init__(
        self,
        server: PostgresServer | None,
        folder: Path,
        *,
        is_running: bool = False,
        first: "PostgresStore | _Elsewhere | None" = None,
        instance: int = 0,
        lanes: int = 1,
    ) -> None:
        """Make a database on `server`, or open that of the `first` process as another `instance`.

        Its clock moves when it is read, or passes as time does.
        """
        self._server = server
        self._folder = folder
        self._instance = instance
        self._lane_count = lanes
        self.clock: RunningLedgerClock | LedgerClock | Callable[[], int]
        if first is not None:
            self.url, self.clock = first.url, first.clock
        else:
            assert server is not None
            self.url = server.create_database()
            self.clock = RunningLedgerClock(self.url) if is_running else LedgerClock(self.url)
        self._is_first = first is None
        self._descriptor = os.memfd_create("owner")
        self.ids = record_ids(instance + 1)
        self.audit_log = AuditLogger(Resource({names.SERVICE_NAME: "auditrace"}), "0.1.0")
        self.committed: list[str] = []
        self._stream_ids = itertools.count(1 + instance * 1_000_000)
        self.reads = PostgresReads(self.url)
        self._lanes: list[PostgresLanes] = []
        self._owners: dict[PostgresLanes, str] = {}
        self._writers: list[PostgresCheckpoints] = []
        self._relays: dict[PostgresOutbox, str] = {}
        self._replays: list[PostgresReplays] = []
        self._relay_numbers = itertools.count()

    @classmethod
    def opened(cls, url: str, folder: Path, instance: int, lanes: int = 2) -> "PostgresStore":
        """Open a ledger whose clock is the machine's, as a process of its own with this many lanes."""
        return cls(None, folder, first=_Elsewhere(url), instance=instance, lanes=lanes)

    @property
    def database(self) -> str:
        """The ledger as settings and commands name it."""
        return self.url

    def beside(self, instance: int) -> "PostgresStore":
        """Open the same ledger as another process."""
        return PostgresStore(self._server, self._folder, first=self, instance=instance)

    def lane(
        self,
        owner: str = "test",
        on_commit: Callable[[Sequence[str]], None] | None = None,
        count: int | None = None,
        url: str | None = None,
    ) -> PostgresLanes:
        """Open the lanes of a process, by another way if told so."""
        settings = StreamSettings(
            audit_log=self.audit_log,
            secret=SECRET,
            clock=self.clock,
            new_stream_id=lambda: str(uuid.UUID(int=next(self._stream_ids), version=4)),
            owner=f"{owner}-{self._instance}-{len(self._lanes)}",
            system_record=self.system_record,
            on_commit=on_commit or self.committed.extend,
        )
        lanes = PostgresLanes(settings, url or self.url, count or self._lane_count)
        self._lanes.append(lanes)
        self._owners[lanes] = settings.owner
        return lanes

    def checkpoints(self, lane: PostgresLanes, *signers: Signer) -> PostgresCheckpoints:
        """Open the checkpoint writer of a lane's process, which holds these private keys."""
        held = signers or (Signer(KEY),)
        writer = PostgresCheckpoints(
            lane, lambda wanted: next((one for one in held if one.fingerprint == wanted), None)
        )
        writer.register(held[0])
        self._writers.append(writer)
        return writer

    def waiting(self, lane: PostgresLanes) -> int:
        """Return how many works wait for a lane."""
        return len(lane._queue._entries)

    def locks(self, lane: PostgresLanes) -> Owner:
        """Return the name of a lane's process."""
        return Owner(self._owners[lane], self._descriptor)

    def kill(self, lane: PostgresLanes) -> None:
        """Let the leases of a lane's process end, as they do when it dies without a word."""
        owner = self._owners[lane]
        with psycopg.connect(self.url) as session:
            # Its sessions end with it: else its lanes, which live on here, might say that they do before anybody looks.
            session.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE pid || '@' || backend_start IN"
                " (SELECT session FROM audit_streams WHERE owner = %s)",
                [owner],
            )
            session.execute("UPDATE audit_streams SET alive_until_ns = 0 WHERE owner = %s", [owner])
            session.execute("UPDATE leases SET until_ns = 0 WHERE owner = %s", [owner])

    def archive(self) -> Sequence[str]:
        """Return every committed record as a line of OTLP JSON, as a complete sink would hold it."""
        with psycopg.connect(self.url) as session:
            rows = session.execute(SQL["all_records"]).fetchall()
        return [
            otlp_json(resource_logs_bytes(resource, scope, [otlp])).decode() for _, _, otlp, resource, scope in rows
        ]

    def verify(self, *keys: Ed25519PublicKey) -> Report:
        """Return what a stranger finds who holds a complete copy and the public key."""
        copy = self._folder / "copy.otlp.jsonl"
        copy.write_text("".join(f"{line}\n" for line in self.archive()))
        return verify(read_copy([copy]), public_keys=keys or [KEY.public_key()])

    def system_record(self, event_name: str) -> AuditRecord:
        """Return a record of the ledger itself."""
        return self.record(event_name, target=Target("ledger", "auditrace"))

    def close(self) -> None:
        """Close what was opened."""
        for lane in self._lanes:
            lane.close()
        for writer in self._writers:
            writer.close()
        for replays in self._replays:
            replays.close()
        for outbox in list(self._relays):
            self.kill_relay(outbox)
        self.reads.close()
        if isinstance(self.clock, RunningLedgerClock | LedgerClock) and self._is_first:
            self.clock.close()
        os.close(self._descriptor)

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

    def outbox(self, owner: str = "relay") -> PostgresOutbox:
        """Open the outbox, as the relay of a process of its own would."""
        name = f"{owner}-{self._instance}-{next(self._relay_numbers)}"
        outbox = PostgresOutbox(self.url, name, self.clock)
        self._relays[outbox] = name
        return outbox

    def replays(self, sink: str = "new") -> PostgresReplays:
        """Open what was delivered, for a sink of this name."""
        replays = PostgresReplays(self.url, sink)
        self._replays.append(replays)
        return replays

    def kill_relay(self, outbox: PostgresOutbox) -> None:
        """Let the leases of a relay's process end, as they do when it dies without a word."""
        self.execute("UPDATE delivery_cursors SET until_ns = 0 WHERE owner = ?", self._relays.pop(outbox))
        outbox.close()

    def execute(self, sql: str, *values: object) -> None:
        """Write straight to the database, past the lanes; what the database refuses raises `refusal`."""
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute(of_postgres(sql), values)

    @contextmanager
    def attacking(self) -> Iterator["Attacker"]:
        """Open the database as somebody does whom no trigger and no constraint holds back."""
        with psycopg.connect(self.url, autocommit=True) as session:
            yield Attacker(session)

    def keys_of(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the registered keys, as a process that has this ledger secret reads them."""
        return read_database(self.url, lambda execute: keys_of(execute, secret))

    def rows(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database; placeholders are question marks."""
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(of_postgres(sql), values).fetchall()


class Attacker:
    """A superuser's session without triggers and constraints, who keeps records and their keys in step."""

    def __init__(self, session: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._session = session
        self._session.execute("SET session_replication_role = replica")
        self._session.execute("ALTER TABLE audit_record_keys DROP CONSTRAINT IF EXISTS audit_record_keys_number_check")

    def execute(self, sql: str, values: Sequence[object] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute a statement whose placeholders are question marks."""
        if sql.startswith("DELETE FROM audit_records"):
            keys = sql.replace("audit_records", "audit_record_keys").split(" RETURNING")[0]
            self._session.execute(of_postgres(keys), values)
        done = self._session.execute(of_postgres(sql), values)
        if sql.startswith(("INSERT INTO audit_records", "UPDATE audit_records SET stream_id")):
            self._session.execute(
                "DELETE FROM audit_record_keys WHERE record_id NOT IN (SELECT record_id FROM audit_records)"
            )
            self._session.execute(
                "INSERT INTO audit_record_keys SELECT record_id, stream_id, number, observed_ns FROM audit_records"
                " ON CONFLICT (record_id) DO UPDATE SET stream_id = excluded.stream_id"
            )
        return done


def of_postgres(sql: str) -> bytes:
    """Return a statement that is written for SQLite as PostgreSQL takes it."""
    # The order of SQLite's positions is that of observed times here.
    text = sql.replace("%", "%%").replace("?", "%s").replace("position", "observed_ns")
    return re.sub(r"\bx'([0-9a-f]*)'", r"'\\x\1'::bytea", text).encode()
