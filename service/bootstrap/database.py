"""What the composition root asks of a kind of database, before a ledger is opened on it and while one is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

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
)
from service.secrets import DeploymentSecret
from service.store.checkpointing import Checkpoints
from service.store.lanes import Lanes
from service.store.opening import is_empty, keys_of, last_and_refused, records_in
from service.store.queries import Execute
from service.store.streams import StreamSettings
from service.store.writing import LedgerTransaction
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Found

L = TypeVar("L", bound=LedgerTransaction)


class LedgerParts(StreamSettings, frozen=True, kw_only=True):
    """What a process gives to the ledger that it opens; no other process ever has the same `owner`."""

    on_hint: Callable[[], None]
    """Called when another process may have committed something; must not raise or block."""
    private_key: Callable[[str], Signer | None]
    """Returns the private key with this fingerprint, None when this process does not hold it."""
    lanes: int | None = None
    """How many lanes commit for it, as `prepare` has allowed; None for the database's own number."""


class ClosableReads(Reads, Protocol):
    """Reads with connections of their own."""

    def close(self) -> None:
        """Close the connections; nobody may read any more."""
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
        """Take what a database has opened.

        Args:
            lanes: commit for this process.
            reads: of any thread.
            checkpoints: in the transactions of these lanes.
            outbox: opens the undelivered records for a relay of this process.
            last: is called when everything else is closed.
            owner_descriptor: while a child process has this descriptor open, other processes take this one for alive.
        """
        self.ledger: Ledger = lanes
        self.reads = reads
        self.checkpoints: CheckpointWriter = checkpoints
        self.outbox = outbox
        self.owner_descriptor = owner_descriptor
        self._close_lanes = partial(lanes.close, checkpoints.write_last)
        self._close_checkpoints = checkpoints.close
        self._last = last

    def close_ledger(self) -> None:
        """Close the streams with records of their own and write the last checkpoint; nothing is committed after."""
        self._close_lanes()

    def close(self) -> None:
        """Close the rest, once the ledger is closed."""
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
    """The folder whose disk holds it, None when that is another machine's."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for people; holds no secret."""

    @abstractmethod
    def _snapshot(self, *, is_long: bool = False) -> AbstractContextManager[Execute]:
        """Open one snapshot of the database, which is there; a long one has no time limits."""

    @abstractmethod
    def _discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong."""

    @abstractmethod
    def examine(self, lanes: int | None = None) -> str:
        """Return in a few words what there is, once it can be opened for writing with so many lanes; make nothing."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what must be there before it can be made."""

    @abstractmethod
    def require(self) -> None:
        """Raise unless there is a ledger."""

    def is_empty(self) -> bool:
        """True while nothing was committed to it, and no key registered: only then may keys be made for it."""
        with self._snapshot() as execute:
            return is_empty(execute)

    @abstractmethod
    def migrate(self) -> Sequence[str]:
        """Bring it to the newest schema; return the names of the steps that were applied."""

    def keys(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        with self._snapshot() as execute:
            return keys_of(execute, secret)

    def records(self) -> Iterator[Found]:
        """Yield every committed record as one snapshot, for the verifier."""
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
        """Do so, in a database with a ledger."""

    def checkpoints_seen(self) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
        """Return the last checkpoint, None before the first, and the streams that none signs over."""
        self.require()
        with self._snapshot() as execute:
            return last_and_refused(execute)

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the database itself; nothing is changed."""
        self.require()
        return self._discrepancies(secret)

    @abstractmethod
    def durability(self, *, needs_standby: bool) -> Durability:
        """Return what it promises of an acknowledged commit, and which of its settings break that promise."""

    def outbox(self, owner: str, clock: Clock) -> tuple[Outbox, Callable[[], None]]:
        """Open the undelivered records for a relay without a ledger, and what gives up its name when it has ended."""
        self.require()
        return self._outbox(owner, clock)

    @abstractmethod
    def _outbox(self, owner: str, clock: Clock) -> tuple[Outbox, Callable[[], None]]:
        """Do so, in a database with a ledger."""

    def replays(self, sink: str) -> Replays:
        """Open what was delivered, for the sink of this name."""
        self.require()
        return self._replays(sink)

    @abstractmethod
    def _replays(self, sink: str) -> Replays:
        """Do so, in a database with a ledger."""

    @abstractmethod
    def open(self, parts: LedgerParts) -> Opened:
        """Open the ledger, brought to the newest schema before."""
