"""The embedded database: one SQLite file."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from typing_extensions import override

from service.bootstrap.database import Database, LedgerParts, Opened
from service.errors import SettingsError
from service.ports import Clock, Discrepancy, Durability
from service.secrets import DeploymentSecret
from service.store.queries import Execute
from service.store.sqlite.checkpoints import SqliteCheckpoints
from service.store.sqlite.connection import connect, create, database_path
from service.store.sqlite.identity import hold
from service.store.sqlite.lane import SqliteLane
from service.store.sqlite.migrate import migrate, missing_steps
from service.store.sqlite.opening import examine, is_empty, require_ledger
from service.store.sqlite.outbox import SqliteOutbox, SqliteReplays, SqliteWebhooks
from service.store.sqlite.owners import OwnerLocks, is_living
from service.store.sqlite.reads import SqliteReads
from service.store.sqlite.reconciliation import reconcile
from service.store.sqlite.snapshot import snapshot
from service.store.sqlite.statements import executing
from service.store.sqlite.untouched import in_use, untouched
from telemetry.files import make_private_folder


class SqliteDatabase(Database):
    """A file, with one lane for each process."""

    def __init__(self, url: str, *, as_it_lies: bool = False) -> None:
        """Name the file; with `as_it_lies`, reading changes nothing beside it.

        Raises:
            SettingsError: the URL names no file.
        """
        self._url = url
        self._path = database_path(url)
        self._as_it_lies = as_it_lies
        self._reading = untouched if as_it_lies else in_use
        self.volume = self._path.parent

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self._path)

    def examine(self, lanes: int | None = None) -> str:
        """Check that the file can be opened for writing, and describe it in a few words."""
        if lanes is not None and lanes > 1:
            raise SettingsError(
                [f"AUDITRACE_LANES is {lanes}, and SQLite takes one writer: leave it out, or name a PostgreSQL"]
            )
        return examine(self._path, self._url, self._reading)

    @override
    def prepare(self) -> None:
        try:
            make_private_folder(self._path.parent)
        except OSError as error:
            raise SettingsError([f"the data folder {self._path.parent} cannot be written: {error.strerror}"]) from error

    def require(self) -> None:
        """Raise unless the file has a ledger and, if it is not read as it lies, is not in use under another name."""
        require_ledger(self._path, self._url, self._reading)
        if not self._as_it_lies:
            hold(self._path).release()

    def is_empty(self) -> bool:
        """Tell whether the file is missing, or nothing was committed to it."""
        return is_empty(self._path, self._reading)

    def is_at_work(self) -> bool:
        """Tell whether the process of an open stream holds its lock file."""
        with self._snapshot() as execute:
            owners = [owner for _, owner, _ in execute("open_streams", {"own": ""})]
        return any(is_living(self._path, owner) for owner in owners)

    def unapplied(self) -> Sequence[str]:
        """Return the steps that the file lacks."""
        with self._reading(self._path) as connection:
            return [step.name for step in missing_steps(connection)]

    def migrate(self) -> Sequence[str]:
        """Make the file if it is missing, apply the steps that it lacks, and return their names."""
        create(self._path)
        connection = connect(self._path)
        try:
            return migrate(connection)
        finally:
            connection.close()

    def _reads(self) -> SqliteReads:
        return SqliteReads(self._path, self._reading)

    def durability(self, *, needs_standby: bool) -> Durability:
        """Return what an acknowledged commit promises: a file has no standby."""
        del needs_standby
        return Durability("an acknowledged commit is on disk")

    def _outbox(self, owner: str, clock: Clock) -> tuple[SqliteOutbox, Callable[[], None]]:
        locks = OwnerLocks(self._path, owner)
        return SqliteOutbox(self._path, locks, clock), locks.release

    def _replays(self, sink: str) -> SqliteReplays:
        return SqliteReplays(self._path, sink)

    def _webhooks(self, owner: str, clock: Clock) -> SqliteWebhooks:
        return SqliteWebhooks(self._path, owner, clock)

    @override
    def open(self, parts: LedgerParts) -> Opened:
        """Open the ledger with one lane, under a lock file of its owner."""
        locks = OwnerLocks(self._path, parts.owner)
        lane = SqliteLane(parts, self._path, locks)
        return Opened(
            lane,
            SqliteReads(self._path),
            SqliteCheckpoints(lane, parts.private_key),
            lambda: SqliteOutbox(self._path, locks, parts.clock),
            locks.release,
            locks.descriptor,
        )

    @contextmanager
    def _snapshot(self, *, is_long: bool = False) -> Generator[Execute]:
        del is_long
        with snapshot(self._path, self._reading) as connection:
            yield executing(connection)

    def _discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        return reconcile(self._path, secret, self._reading)
