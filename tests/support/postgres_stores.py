"""Real PostgreSQL stores for tests: one database a test, with a clock that the test controls."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import psycopg

from service.ports import RegisteredKey
from service.secrets import DeploymentSecret
from service.store.opening import keys_of
from service.store.postgres.checkpoints import PostgresCheckpoints
from service.store.postgres.lanes import PostgresLanes
from service.store.postgres.opening import read as read_database
from service.store.postgres.outbox import PostgresOutbox, PostgresReplays, PostgresWebhooks
from service.store.postgres.reads import PostgresReads
from service.store.postgres.statements import SQL
from telemetry.audit.signer import Signer
from tests.support.ids import record_ids
from tests.support.postgres import PostgresServer, as_service
from tests.support.postgres_clocks import LedgerClock, RunningLedgerClock
from tests.support.stores import LedgerStore


class _Elsewhere(msgspec.Struct, frozen=True):
    """A ledger that is run by others, on the machine's clock."""

    url: str
    clock: Callable[[], int] = time.time_ns  # noqa: TID251 - a process of its own


class Owner(msgspec.Struct, frozen=True):
    """The name of a process, and a descriptor for its children, as SQLite's lock of an owner has them."""

    owner: str
    descriptor: int


class PostgresStore(LedgerStore):
    """One process's view of a PostgreSQL ledger: lanes, reads and outbox on the same database.

    All of them work with the role of the service. So every test shows that its rights are enough. What a test does past
    them, it does as the owner, which is also a superuser.
    """

    kind: ClassVar[str] = "postgres"
    refusal: ClassVar[type[Exception]] = psycopg.IntegrityError
    stream_columns: ClassVar[str] = "session, "
    """What only this store has in its streams."""
    all_records: ClassVar[str] = SQL["all_records"].decode()

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
        if first is not None:
            self.url, clock = first.url, first.clock
            self.service_url = first.url if isinstance(first, _Elsewhere) else first.service_url
        else:
            assert server is not None
            self.url = server.create_database()
            self.service_url = as_service(self.url)
            clock = RunningLedgerClock(self.url) if is_running else LedgerClock(self.url)
        super().__init__(folder, clock, record_ids(instance + 1), instance)
        self._server = server
        self._lane_count = lanes
        self._is_first = first is None
        self._descriptor = os.memfd_create("owner")
        self.reads = PostgresReads(self.service_url)

    @classmethod
    def opened(cls, url: str, folder: Path, instance: int, lanes: int = 2) -> "PostgresStore":
        """Open a ledger whose clock is the machine's, as a process of its own with this many lanes."""
        return cls(None, folder, first=_Elsewhere(url), instance=instance, lanes=lanes)

    @property
    def server(self) -> PostgresServer:
        """The server of its database."""
        assert self._server is not None
        return self._server

    @property
    def database(self) -> str:
        """The ledger as settings and commands name it."""
        return self.service_url

    @property
    def owner_database(self) -> str:
        """The same, with the role that owns the tables."""
        return self.url

    def beside(self, instance: int) -> "PostgresStore":
        """Open the same ledger as another process."""
        return PostgresStore(self._server, self.folder, first=self, instance=instance)

    def lane(
        self,
        owner: str = "test",
        on_commit: Callable[[Sequence[str]], None] | None = None,
        count: int | None = None,
        url: str | None = None,
    ) -> PostgresLanes:
        """Open the lanes of a process, by another way if told so."""
        settings = self._stream_settings(self._lane_owner(owner), on_commit)
        lanes = PostgresLanes(settings, url or self.service_url, count or self._lane_count)
        self._lanes.append(lanes)
        self._owners[lanes] = settings.owner
        return lanes

    def checkpoints(
        self, lane: PostgresLanes, *signers: Signer, find: Callable[[str], Signer | None] | None = None
    ) -> PostgresCheckpoints:
        """Open the checkpoint writer of a lane's process, with these private keys, or those that `find` finds."""
        writer: PostgresCheckpoints = self._opened_writer(PostgresCheckpoints, lane, signers, find)
        return writer

    def locks(self, lane: PostgresLanes) -> Owner:
        """Return the name of a lane's process."""
        return Owner(self._owners[lane], self._descriptor)

    def kill(self, lane: PostgresLanes) -> None:
        """Let the leases of a lane's process end, as they do when it is killed."""
        owner = self._owners[lane]
        with psycopg.connect(self.url) as session:
            # Its sessions end first: its lanes still run in this process, and could renew their leases.
            session.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE pid || '@' || backend_start IN"
                " (SELECT session FROM audit_streams WHERE owner = %s)",
                [owner],
            )
            session.execute("UPDATE audit_streams SET alive_until_ns = 0 WHERE owner = %s", [owner])
            session.execute("UPDATE leases SET until_ns = 0 WHERE owner = %s", [owner])

    def close(self) -> None:
        """Close what was opened."""
        self._close_opened()
        if isinstance(self.clock, RunningLedgerClock | LedgerClock) and self._is_first:
            self.clock.close()
        os.close(self._descriptor)

    def outbox(self, owner: str = "relay") -> PostgresOutbox:
        """Open the outbox, as the relay of a process of its own would."""
        name = self._relay_owner(owner)
        outbox = PostgresOutbox(self.service_url, name, self.clock)
        self._relays[outbox] = name
        return outbox

    def replays(self, sink: str = "new") -> PostgresReplays:
        """Open what was delivered, for a sink of this name."""
        replays = PostgresReplays(self.service_url, sink)
        self._replays.append(replays)
        return replays

    def kill_relay(self, outbox: PostgresOutbox) -> None:
        """Let the leases of a relay's process end, as they do when it is killed."""
        self.execute("UPDATE delivery_cursors SET until_ns = 0 WHERE owner = ?", self._relays.pop(outbox))
        outbox.close()

    def webhooks(self) -> PostgresWebhooks:
        """Open the outbox of webhooks, as a process of its own would."""
        name = self._relay_owner("webhooks")
        webhooks = PostgresWebhooks(self.service_url, name, self.clock)
        self._webhooks.append(webhooks)
        self._owners[webhooks] = name
        return webhooks

    def kill_webhooks(self, webhooks: PostgresWebhooks) -> None:
        """Let the leases of the process end, as they do when it is killed."""
        self._webhooks.remove(webhooks)
        self.execute("UPDATE leases SET until_ns = 0 WHERE owner = ?", self._owners.pop(webhooks))
        webhooks.close()

    def execute(self, sql: str, *values: object) -> None:
        """Write straight to the database, past the lanes; a statement that the database refuses raises `refusal`."""
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute(of_postgres(sql), values)

    @contextmanager
    def attacking(self) -> Iterator["Attacker"]:
        """Open the database without its triggers and constraints, as an attacker would."""
        with psycopg.connect(self.url, autocommit=True) as session:
            yield Attacker(session)

    def keys_of(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the registered keys, as a process that has this ledger secret reads them."""
        return read_database(self.service_url, lambda execute: keys_of(execute, secret))

    def rows(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database; placeholders are question marks."""
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(of_postgres(sql), values).fetchall()


class Attacker:
    """A superuser's session without triggers and constraints; it keeps records and their keys in step."""

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
