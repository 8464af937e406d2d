"""What the composition root needs from each kind of database, before it opens a ledger and while it is open."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from service.errors import SettingsError
from service.ports import (
    CheckpointWriter,
    Clock,
    Discrepancy,
    Durability,
    LastCheckpoint,
    Ledger,
    Outbox,
    Reads,
    RefusedStream,
    RegisteredKey,
    Replays,
    StoredConfiguration,
    WebhookOutbox,
    WebhookState,
)
from service.secrets import DeploymentSecret
from service.store.checkpointing import Checkpoints
from service.store.lanes import Lanes
from service.store.opening import configuration_of, is_empty, keys_of, last_and_refused, records_in
from service.store.queries import Execute
from service.store.streams import StreamSettings
from service.store.webhooks import require_webhooks, states_of
from service.store.writing import LedgerTransaction
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Found

L = TypeVar("L", bound=LedgerTransaction)


class LedgerParts(StreamSettings, frozen=True, kw_only=True):
    """What a process passes to the ledger that it opens; no other process ever has the same `owner`."""

    on_hint: Callable[[], None]
    """Called when another process may have committed something; must not raise or block."""
    private_key: Callable[[str], Signer | None]
    """Returns the private key with this fingerprint, None if this process does not hold it."""
    lanes: int | None = None
    """How many lanes commit for the process, as `examine` has allowed; None for the default of the database."""


class ClosableReads(Reads, Protocol):
    """Reads with connections of their own."""

    def close(self) -> None:
        """Close the connections; no read may follow."""
        ...


class Opened:
    """A ledger that this process has opened."""

    def __init__(
        self,
        lanes: Lanes[L],
        reads: ClosableReads,
        checkpoints: Checkpoints[L],
        outbox: Callable[[], Outbox],
        last: Callable[[], None],
        owner_descriptor: int | None = None,
    ) -> None:
        """Take the parts that a database has opened.

        Args:
            lanes: commit for this process.
            reads: for any thread.
            checkpoints: write in the transactions of these lanes.
            outbox: opens the undelivered records for a relay of this process.
            last: is called after everything else is closed.
            owner_descriptor: while a child has this descriptor open, this process counts as alive for other processes.
        """
        self.ledger: Ledger = lanes
        self.reads = reads
        self.checkpoints: CheckpointWriter = checkpoints
        self.outbox = outbox
        self.owner_descriptor = owner_descriptor
        self._close_lanes = partial(lanes.close, checkpoints.write_last)
        self._close_unsigned = lanes.close
        self._close_checkpoints = checkpoints.close
        self._last = last

    def close_ledger(self) -> None:
        """Close each stream with a record and write the last checkpoint; nothing is committed after that."""
        self._close_lanes()

    def close_unsigned(self) -> None:
        """Close each stream with a record, and leave the checkpoint to the service; then close the rest."""
        self._close_unsigned()
        self.close()

    def close(self) -> None:
        """Close the rest, after `close_ledger`."""
        # In SQLite, the last connection moves the WAL into the database file; a connection that only reads cannot.
        self.reads.close()
        self._close_checkpoints()
        self._last()


class Database(ABC):
    """A database that a URL names; nothing is opened or changed until a method is called.

    Raises (each method):
        SettingsError: the URL, or what it names, cannot be used; the text says what to do.
        TryLaterError: it cannot be used now.
    """

    volume: Path | None = None
    """The folder of the database, None if it is on another machine."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the database is, as texts for people show it; without secrets."""

    @abstractmethod
    def _snapshot(self, *, is_long: bool = False) -> AbstractContextManager[Execute]:
        """Open one snapshot of the database, which must exist; a long one has no time limits."""

    @abstractmethod
    def _discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong."""

    @abstractmethod
    def examine(self, lanes: int | None = None) -> str:
        """Check that it can be opened for writing with so many lanes, and describe it in a few words; make nothing."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the database needs before it can be made."""

    @abstractmethod
    def require(self) -> None:
        """Raise unless there is a ledger."""

    def is_empty(self) -> bool:
        """Tell whether nothing was committed and no key registered; only then may keys be made for the database."""
        with self._snapshot() as execute:
            return is_empty(execute)

    @abstractmethod
    def is_at_work(self) -> bool:
        """Tell whether a living process has a stream open in it; nothing is changed."""

    @abstractmethod
    def unapplied(self) -> Sequence[str]:
        """Return the names of the steps that `migrate` would apply; nothing is changed."""

    @abstractmethod
    def migrate(self) -> Sequence[str]:
        """Migrate it to the newest schema, and return the names of the applied steps."""

    def rights(self) -> str:
        """Say whether the role of the URL may do what the service needs, and what it may do beyond that.

        Raises:
            SettingsError: it may not do what the service needs.
        """
        return "a file has no roles: whoever may write it can change it, and `auditrace verify` finds the change"

    def require_role(self, role: str) -> None:
        """Raise unless the role can be given rights; a database without roles gives none."""
        raise SettingsError([f"--grants {role}: a SQLite file has no roles, only the mode of the file"])

    def grant(self, role: str, *, only_reads: bool) -> str | None:
        """Give a role the rights of the service, or only those of readers; return what it may do beyond them."""
        del only_reads
        self.require_role(role)
        return None

    def keys(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        with self._snapshot() as execute:
            return keys_of(execute, secret)

    def records(self) -> Iterator[Found]:
        """Yield every committed record of one snapshot, for the verifier."""
        self.require()
        return self._records()

    def _records(self) -> Iterator[Found]:
        with self._snapshot(is_long=True) as execute:
            yield from records_in(execute, self.place)

    def reads(self) -> ClosableReads:
        """Open it for reading."""
        self.require()
        return self._reads()

    @abstractmethod
    def _reads(self) -> ClosableReads:
        """Do this on a database that has a ledger."""

    def checkpoints_seen(self) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
        """Return the last checkpoint (None before the first) and the refused streams."""
        self.require()
        with self._snapshot() as execute:
            return last_and_refused(execute)

    def configuration(self, source: str, host: str) -> StoredConfiguration | None:
        """Return the newest configuration of a source on a host; None if there is none."""
        self.require()
        with self._snapshot() as execute:
            return configuration_of(execute, source, host)

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the database itself; nothing is changed."""
        self.require()
        return self._discrepancies(secret)

    @abstractmethod
    def durability(self, *, needs_standby: bool) -> Durability:
        """Return what it promises for an acknowledged commit, and which of its settings break that promise."""

    def outbox(self, owner: str, clock: Clock) -> tuple[Outbox, Callable[[], None]]:
        """Open the undelivered records for a relay without a ledger; also return a function that releases `owner`."""
        self.require()
        return self._outbox(owner, clock)

    @abstractmethod
    def _outbox(self, owner: str, clock: Clock) -> tuple[Outbox, Callable[[], None]]:
        """Do this on a database that has a ledger."""

    def replays(self, sink: str) -> Replays:
        """Open the delivered records, for the sink of this name."""
        self.require()
        return self._replays(sink)

    @abstractmethod
    def _replays(self, sink: str) -> Replays:
        """Do this on a database that has a ledger."""

    def webhooks(self, owner: str, clock: Clock) -> WebhookOutbox:
        """Open the records for webhooks, as `owner`, a name that no other process ever has.

        Raises:
            SettingsError: the schema is older than webhooks.
        """
        self.require()
        with self._snapshot() as execute:
            require_webhooks(execute)
        return self._webhooks(owner, clock)

    @abstractmethod
    def _webhooks(self, owner: str, clock: Clock) -> WebhookOutbox:
        """Do this on a database that has the tables for it."""

    def webhook_states(self, endpoints: Sequence[str]) -> Mapping[str, WebhookState | None]:
        """Return the stored state of each endpoint; None for one that was never registered."""
        self.require()
        with self._snapshot() as execute:
            return states_of(execute, endpoints)

    @abstractmethod
    def open(self, parts: LedgerParts) -> Opened:
        """Open the ledger; its schema must be the newest one."""
