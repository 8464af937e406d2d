"""The database of many machines: one PostgreSQL."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from service.bootstrap.database import LedgerParts
from service.errors import SettingsError
from service.ports import Clock, Discrepancy, Durability, LastCheckpoint, RefusedStream, RegisteredKey
from service.secrets import DeploymentSecret
from service.store.checkpointing import CheckpointSettings
from service.store.postgres.checkpoints import PostgresCheckpoints
from service.store.postgres.connection import place_of
from service.store.postgres.lanes import LANES, PostgresLanes
from service.store.postgres.opening import durability, examine, is_empty, keys_of, last_and_refused, migrate_database
from service.store.postgres.outbox import PostgresOutbox
from service.store.postgres.reads import PostgresReads
from service.store.postgres.reconciliation import reconcile
from service.store.postgres.replays import PostgresReplays
from service.store.postgres.session import LaneSettings
from service.store.postgres.snapshot import recorded
from service.store.postgres.wakeups import Wakeups
from telemetry.audit.verify import Found


class PostgresDatabase:
    """Implements `service.bootstrap.database.Database` on a server."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def volume(self) -> Path | None:
        """None: its disk is the server's to watch."""
        return None

    @property
    def place(self) -> str:
        """Host and name."""
        return place_of(self._url)

    def examine(self, lanes: int | None = None) -> str:
        """Return which server it is, once it can be used; it takes any number of lanes that it has sessions for."""
        del lanes
        return examine(self._url)

    def prepare(self) -> None:
        """Nothing: the database is there, or cannot be used."""

    def require(self) -> None:
        """Raise unless the database has a ledger."""
        if is_empty(self._url):
            to_do = "set AUDITRACE_DATABASE or the PG* variables; the first start of the service makes one"
            raise SettingsError([f"there is no ledger at {place_of(self._url)}: {to_do}"])

    def is_empty(self) -> bool:
        """True while nothing was committed to it."""
        return is_empty(self._url)

    def migrate(self) -> Sequence[str]:
        """Bring the database to the newest schema."""
        return migrate_database(self._url)

    def keys(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger."""
        return keys_of(self._url, secret)

    def records(self) -> Iterator[Found]:
        """Yield every committed record."""
        self.require()
        return recorded(self._url)

    def reads(self) -> PostgresReads:
        """Open the database for reading."""
        self.require()
        return PostgresReads(self._url)

    def checkpoints_seen(self) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
        """Return the last checkpoint, and the streams that none signs over."""
        self.require()
        return last_and_refused(self._url)

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the database."""
        self.require()
        return reconcile(self._url, secret)

    def durability(self, *, needs_standby: bool) -> Durability:
        """Return what the server promises of an acknowledged commit, and which settings break that promise."""
        return durability(self._url, needs_standby=needs_standby)

    def outbox(self, owner: str, clock: Clock) -> tuple[PostgresOutbox, Callable[[], None]]:
        """Open the undelivered records; the leases of `owner` are given back by the relay itself."""
        self.require()
        return PostgresOutbox(self._url, owner, clock), lambda: None

    def replays(self, sink: str) -> PostgresReplays:
        """Open what was delivered, for the sink of this name."""
        self.require()
        return PostgresReplays(self._url, sink)

    def open(self, parts: LedgerParts) -> "OpenedPostgres":
        """Open the ledger with the lanes of this process."""
        return OpenedPostgres(self._url, parts)


class OpenedPostgres:
    """Implements `service.bootstrap.database.Opened`: a few lanes, and hints between processes."""

    owner_descriptor = None

    def __init__(self, url: str, parts: LedgerParts) -> None:
        self._url = url
        self._owner, self._clock = parts.owner, parts.clock
        self._wakeups = Wakeups(url, parts.on_hint)

        def on_commit(outcomes: Sequence[str]) -> None:
            parts.on_commit(outcomes)
            self._wakeups.hint()

        self.reads = PostgresReads(url)
        self.ledger = PostgresLanes(
            LaneSettings(
                url=url,
                audit_log=parts.audit_log,
                secret=parts.secret,
                clock=parts.clock,
                new_stream_id=parts.new_stream_id,
                owner=parts.owner,
                system_record=parts.system_record,
                on_commit=on_commit,
            ),
            parts.lanes or LANES,
        )
        self.checkpoints = PostgresCheckpoints(
            CheckpointSettings(
                lanes=self.ledger,
                secret=parts.secret,
                clock=parts.clock,
                owner=parts.owner,
                system_record=parts.system_record,
                private_key=parts.private_key,
            ),
            url,
        )

    def outbox(self) -> PostgresOutbox:
        """Open the undelivered records."""
        return PostgresOutbox(self._url, self._owner, self._clock)

    def close_ledger(self) -> None:
        """Close the streams and write the last checkpoint behind them."""
        self.ledger.close(self.checkpoints.write_last)

    def close(self) -> None:
        """Close the sessions."""
        self._wakeups.close()
        self.reads.close()
        self.checkpoints.close()
