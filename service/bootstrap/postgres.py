"""The database for many machines: one PostgreSQL."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec
from typing_extensions import override

from service.bootstrap.database import Database, LedgerParts, Opened
from service.bootstrap.libpq_files import require_regular_files
from service.errors import SettingsError
from service.ports import Clock, Discrepancy, Durability
from service.secrets import DeploymentSecret
from service.store.leases import LEASE_NS
from service.store.postgres.checkpoints import PostgresCheckpoints
from service.store.postgres.connection import place_of
from service.store.postgres.lanes import LANES, PostgresLanes
from service.store.postgres.migrate import missing_steps
from service.store.postgres.opening import (
    describe_rights,
    durability,
    examine,
    grant_rights,
    migrate_database,
    require_role,
)
from service.store.postgres.outbox import PostgresOutbox, PostgresReplays, PostgresWebhooks
from service.store.postgres.reads import PostgresReads
from service.store.postgres.reconciliation import reconcile
from service.store.postgres.snapshot import snapshot
from service.store.postgres.statements import executing
from service.store.postgres.wakeups import Wakeups
from service.store.queries import Execute


class PostgresDatabase(Database):
    """A database on a server; this process does not watch the server's disk."""

    def __init__(self, url: str) -> None:
        """Name the database; raise SettingsError if a file that libpq would read is none."""
        require_regular_files(url)
        self._url = url

    @property
    def place(self) -> str:
        """Host and name of the database."""
        return place_of(self._url)

    def examine(self, lanes: int | None = None) -> str:
        """Check that the server can be used, and describe it; it takes any number of lanes that it has sessions for."""
        del lanes
        return examine(self._url)

    @override
    def prepare(self) -> None:
        """Do nothing: the database exists, or cannot be used."""

    def require(self) -> None:
        """Raise unless the database has a ledger."""
        if self.is_empty():
            to_do = "set AUDITRACE_DATABASE or the PG* variables; the first start of the service makes one"
            raise SettingsError([f"there is no ledger at {self.place}: {to_do}"])

    def is_at_work(self) -> bool:
        """Tell whether a stream has a lease that has not ended by the server's clock."""
        with self._snapshot() as execute:
            return bool(list(execute("streams_at_work", {"own": "", "lease_ns": LEASE_NS})))

    def unapplied(self) -> Sequence[str]:
        """Return what is missing in the schema on the server."""
        with snapshot(self._url, is_long=False) as session:
            return [step.name for step in missing_steps(session)]

    def migrate(self) -> Sequence[str]:
        """Apply what is missing in the schema on the server, and return the names of these steps."""
        return migrate_database(self._url)

    @override
    def rights(self) -> str:
        """Say what the role may do beyond what the service needs."""
        return describe_rights(self._url)

    @override
    def require_role(self, role: str) -> None:
        """Raise unless the server has this role, and it is not the owner."""
        require_role(self._url, role)

    @override
    def grant(self, role: str, *, only_reads: bool) -> str | None:
        """Give a role the rights of the service, or only those of readers, as the owner of the tables."""
        return grant_rights(self._url, role, only_reads=only_reads)

    def _reads(self) -> PostgresReads:
        return PostgresReads(self._url)

    @override
    def durability(self, *, needs_standby: bool) -> Durability:
        return durability(self._url, needs_standby=needs_standby)

    def _outbox(self, owner: str, clock: Clock) -> tuple[PostgresOutbox, Callable[[], None]]:
        return PostgresOutbox(self._url, owner, clock), lambda: None

    def _replays(self, sink: str) -> PostgresReplays:
        return PostgresReplays(self._url, sink)

    def _webhooks(self, owner: str, clock: Clock) -> PostgresWebhooks:
        return PostgresWebhooks(self._url, owner, clock)

    @override
    def open(self, parts: LedgerParts) -> Opened:
        wakeups = Wakeups(self._url, parts.on_hint)

        def on_commit(outcomes: Sequence[str]) -> None:
            parts.on_commit(outcomes)
            wakeups.hint()

        settings = msgspec.structs.replace(parts, on_commit=on_commit)
        lanes = PostgresLanes(settings, self._url, parts.lanes or LANES)
        checkpoints = PostgresCheckpoints(lanes, parts.private_key)
        outbox = partial(PostgresOutbox, self._url, parts.owner, parts.clock)
        return Opened(lanes, PostgresReads(self._url), checkpoints, outbox, wakeups.close)

    @contextmanager
    def _snapshot(self, *, is_long: bool = False) -> Generator[Execute]:
        with snapshot(self._url, is_long=is_long) as session:
            yield executing(session)

    def _discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        return reconcile(self._url, secret)
