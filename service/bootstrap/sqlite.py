"""The embedded database: one SQLite file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from service.bootstrap.database import LedgerParts
from service.errors import SettingsError
from service.ports import Clock, Discrepancy, Durability, LastCheckpoint, RefusedStream, RegisteredKey
from service.secrets import DeploymentSecret
from service.store.checkpointing import CheckpointSettings
from service.store.sqlite.checkpoints import SqliteCheckpoints
from service.store.sqlite.connection import connect, create, database_path
from service.store.sqlite.identity import hold
from service.store.sqlite.lane import LaneSettings, SqliteLane
from service.store.sqlite.migrate import migrate
from service.store.sqlite.opening import examine, is_empty, keys_of, last_and_refused, require_ledger
from service.store.sqlite.outbox import SqliteOutbox
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.reads import SqliteReads
from service.store.sqlite.reconciliation import reconcile
from service.store.sqlite.replays import SqliteReplays
from service.store.sqlite.snapshot import recorded
from service.store.sqlite.untouched import in_use, untouched
from telemetry.audit.verify import Found


class SqliteDatabase:
    """Implements `service.bootstrap.database.Database` on a file."""

    def __init__(self, url: str, *, as_it_lies: bool = False) -> None:
        """Name the file; what only reads leaves everything beside it as it is, if asked for.

        Raises:
            SettingsError: the URL names none.
        """
        self._url = url
        self._path = database_path(url)
        self._as_it_lies = as_it_lies
        self._reading = untouched if as_it_lies else in_use

    @property
    def volume(self) -> Path | None:
        """The folder of the file."""
        return self._path.parent

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self._path)

    def examine(self, lanes: int | None = None) -> str:
        """Return what there is, once it can be opened for writing; there is one lane to a process."""
        if lanes is not None and lanes > 1:
            raise SettingsError(
                [f"AUDITRACE_LANES is {lanes}, and SQLite takes one writer: leave it out, or name a PostgreSQL"]
            )
        return examine(self._path, self._url, self._reading)

    def prepare(self) -> None:
        """Make the folder."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError([f"the data folder {self._path.parent} cannot be written: {error.strerror}"]) from error

    def require(self) -> None:
        """Raise unless the file is there, and, unless it is read as it lies, no other name of it is in use."""
        require_ledger(self._path, self._url, self._reading)
        if not self._as_it_lies:
            hold(self._path).release()

    def is_empty(self) -> bool:
        """True while the file is missing, or nothing was committed to it."""
        return is_empty(self._path, self._reading)

    def migrate(self) -> Sequence[str]:
        """Bring the file to the newest schema; one that is made here can be read by its owner only."""
        create(self._path)
        connection = connect(self._path)
        try:
            return migrate(connection)
        finally:
            connection.close()

    def keys(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger."""
        return keys_of(self._path, secret, self._reading)

    def records(self) -> Iterator[Found]:
        """Yield every committed record."""
        self.require()
        return recorded(self._path, self._reading)

    def reads(self) -> SqliteReads:
        """Open the file for reading."""
        self.require()
        return SqliteReads(self._path, self._reading)

    def checkpoints_seen(self) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
        """Return the last checkpoint, and the streams that none signs over."""
        self.require()
        return last_and_refused(self._path, self._reading)

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the file."""
        self.require()
        return reconcile(self._path, secret, self._reading)

    def durability(self, *, needs_standby: bool) -> Durability:
        """Return the promise: where the file is opened, it is settled how durable a commit is."""
        del needs_standby
        return Durability("an acknowledged commit is on disk")

    def outbox(self, owner: str, clock: Clock) -> tuple[SqliteOutbox, Callable[[], None]]:
        """Open the undelivered records under a lock of their own."""
        self.require()
        locks = OwnerLocks(self._path, owner)
        return SqliteOutbox(self._path, locks, clock), locks.release

    def replays(self, sink: str) -> SqliteReplays:
        """Open what was delivered, for the sink of this name."""
        self.require()
        return SqliteReplays(self._path, sink)

    def open(self, parts: LedgerParts) -> "OpenedSqlite":
        """Open the ledger with the lane of this process."""
        return OpenedSqlite(self._path, parts)


class OpenedSqlite:
    """Implements `service.bootstrap.database.Opened`: one lane, and what belongs to it."""

    def __init__(self, path: Path, parts: LedgerParts) -> None:
        self._path = path
        self._clock = parts.clock
        self._locks = OwnerLocks(path, parts.owner)
        self.reads = SqliteReads(path)
        self.ledger = SqliteLane(
            LaneSettings(
                path=path,
                audit_log=parts.audit_log,
                secret=parts.secret,
                clock=parts.clock,
                new_stream_id=parts.new_stream_id,
                owner=parts.owner,
                locks=self._locks,
                system_record=parts.system_record,
                on_commit=parts.on_commit,
            )
        )
        self.checkpoints = SqliteCheckpoints(
            CheckpointSettings(
                lanes=self.ledger,
                secret=parts.secret,
                clock=parts.clock,
                owner=parts.owner,
                system_record=parts.system_record,
                private_key=parts.private_key,
            ),
            path,
            self._locks,
        )

    @property
    def owner_descriptor(self) -> int:
        """The lock of this process."""
        return self._locks.descriptor

    def outbox(self) -> SqliteOutbox:
        """Open the undelivered records."""
        return SqliteOutbox(self._path, self._locks, self._clock)

    def close_ledger(self) -> None:
        """Close the stream and write the last checkpoint behind it."""
        self.ledger.close(self.checkpoints.write_last)

    def close(self) -> None:
        """Close the connections and give up the lock."""
        # Last the connection that may write: it alone can put what is in the WAL into the database file.
        self.reads.close()
        self.checkpoints.close()
        self._locks.release()
