"""Real SQLite stores for tests: one database file a test, made by the migrations."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from service.ports import RegisteredKey
from service.secrets import DeploymentSecret
from service.store.opening import keys_of
from service.store.sqlite.checkpoints import SqliteCheckpoints
from service.store.sqlite.connection import connect, create
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.migrate import migrate
from service.store.sqlite.outbox import SqliteOutbox, SqliteReplays, SqliteWebhooks
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.reads import SqliteReads
from service.store.sqlite.statements import SQL, executing
from service.store.sqlite.untouched import in_use
from telemetry.audit.signer import Signer
from tests.support.ids import ManualClock, record_ids
from tests.support.stores import LedgerStore


class SqliteStore(LedgerStore):
    """One process's view of a SQLite ledger: lanes, reads and outbox on the same file."""

    kind: ClassVar[str] = "sqlite"
    refusal: ClassVar[type[Exception]] = sqlite3.IntegrityError
    stream_columns: ClassVar[str] = ""
    """What only this store has in its streams."""
    all_records: ClassVar[str] = SQL["all_records"]

    def __init__(self, folder: Path, clock: Callable[[], int] | None = None, instance: int = 0) -> None:
        """Open or make the ledger in `folder`; another process on the same one is another `instance`."""
        # Never the same for two instances on one folder.
        prefix = (uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).int + instance) % 4096
        super().__init__(folder, clock or ManualClock(), record_ids(prefix), instance)
        self.path = folder / "ledger.db"
        create(self.path)
        with closing(connect(self.path)) as connection:
            migrate(connection)
        self.reads = SqliteReads(self.path)

    @property
    def database(self) -> str:
        """The ledger as settings and commands name it."""
        return f"sqlite:///{self.path}"

    @property
    def owner_database(self) -> str:
        """The same: a file has no roles."""
        return self.database

    def beside(self, instance: int) -> "SqliteStore":
        """Open the same ledger as another process."""
        return SqliteStore(self.folder, self.clock, instance)

    def lane(self, owner: str = "test", on_commit: Callable[[Sequence[str]], None] | None = None) -> SqliteLane:
        """Open a lane, as a process of its own would."""
        locks = OwnerLocks(self.path, self._lane_owner(owner))
        settings = self._stream_settings(locks.owner, on_commit)
        lane = SqliteLane(settings, self.path, locks)
        self._lanes.append(lane)
        self._owners[lane] = locks
        return lane

    def checkpoints(
        self, lane: SqliteLane, *signers: Signer, find: Callable[[str], Signer | None] | None = None
    ) -> SqliteCheckpoints:
        """Open the checkpoint writer of a lane's process, with these private keys, or those that `find` finds."""
        writer: SqliteCheckpoints = self._opened_writer(SqliteCheckpoints, lane, signers, find)
        return writer

    def locks(self, lane: SqliteLane) -> OwnerLocks:
        """Return the locks that a lane's process holds."""
        return self._owners[lane]

    def kill(self, lane: SqliteLane) -> None:
        """Let the kernel drop the lock of a lane's process, as it does when a process is killed."""
        self._owners.pop(lane).release()

    def outbox(self, owner: str = "relay") -> SqliteOutbox:
        """Open the outbox, as the relay of a process of its own would."""
        locks = OwnerLocks(self.path, self._relay_owner(owner))
        outbox = SqliteOutbox(self.path, locks, self.clock)
        self._relays[outbox] = locks
        return outbox

    def replays(self, sink: str = "new") -> SqliteReplays:
        """Open what was delivered, for a sink of this name."""
        replays = SqliteReplays(self.path, sink)
        self._replays.append(replays)
        return replays

    def kill_relay(self, outbox: SqliteOutbox) -> None:
        """Let the kernel drop the lock of a relay's process, as it does when a process is killed."""
        self._relays.pop(outbox).release()
        outbox.close()

    def webhooks(self) -> SqliteWebhooks:
        """Open the outbox of webhooks, as a process of its own would."""
        webhooks = SqliteWebhooks(self.path, self._relay_owner("webhooks"), self.clock)
        self._webhooks.append(webhooks)
        return webhooks

    def kill_webhooks(self, webhooks: SqliteWebhooks) -> None:
        """Let the kernel drop the lock of the process, as it does when a process is killed."""
        self._webhooks.remove(webhooks)
        webhooks.close()

    def close(self) -> None:
        """Close what was opened; may be called again."""
        self._close_opened()
        while self._owners:
            self._owners.popitem()[1].release()

    def execute(self, sql: str, *values: object) -> None:
        """Write straight to the file, past the lanes; a statement that the file refuses raises `refusal`."""
        with closing(connect(self.path)) as connection:
            connection.execute(sql, values)

    @contextmanager
    def attacking(self) -> Iterator[sqlite3.Connection]:
        """Open the file without its triggers and foreign keys, as an attacker would."""
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
        with closing(connect(self.path, read_only=True)) as connection:
            return connection.execute(sql, values).fetchall()
