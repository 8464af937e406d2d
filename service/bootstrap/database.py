"""What the composition root asks of a kind of database, before a ledger is opened on it and while one is."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

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
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.record import AuditRecord
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Found


class LedgerParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a process gives to the ledger that it opens."""

    owner: str
    """Names the process; no other process ever has the same."""
    audit_log: AuditLogger
    secret: DeploymentSecret
    clock: Clock
    new_stream_id: Callable[[], str]
    system_record: Callable[[str], AuditRecord]
    on_commit: Callable[[Sequence[str]], None]
    """Called after each commit with the outcomes of its records; must not raise or block."""
    on_hint: Callable[[], None]
    """Called when another process may have committed something; must not raise or block."""
    private_key: Callable[[str], Signer | None]
    lanes: int | None = None
    """How many lanes commit for it, as `prepare` has allowed; None for the database's own number."""


class ClosableReads(Reads, Protocol):
    """Reads with connections of their own."""

    def close(self) -> None:
        """Close the connections; nobody may read any more."""
        ...


class Opened(Protocol):
    """A ledger that this process has opened."""

    @property
    def ledger(self) -> Ledger:
        """Where changes and records are committed together."""
        ...

    @property
    def reads(self) -> ClosableReads:
        """Reads of what is committed."""
        ...

    @property
    def checkpoints(self) -> CheckpointWriter:
        """Writes checkpoints for this process."""
        ...

    @property
    def owner_descriptor(self) -> int | None:
        """A descriptor that keeps this process alive in the eyes of others while a child has it; None without one."""
        ...

    def outbox(self) -> Outbox:
        """Open the undelivered records for a relay of this process."""
        ...

    def close_ledger(self) -> None:
        """Close the streams with records of their own and write the last checkpoint; nothing is committed after."""
        ...

    def close(self) -> None:
        """Close the rest; the ledger is closed."""
        ...


class Database(Protocol):
    """A database that a URL names; nothing is opened or changed until a method is called.

    Raises (each method):
        SettingsError: the URL, or what it names, cannot be used; the text says what to do.
        TryLaterError: it cannot be used now.
    """

    @property
    def volume(self) -> Path | None:
        """The folder whose disk holds it, None when that is another machine's."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for people; holds no secret."""
        ...

    def examine(self, lanes: int | None = None) -> str:
        """Return in a few words what there is, once it can be opened for writing with so many lanes; make nothing."""
        ...

    def prepare(self) -> None:
        """Make what must be there before it can be made."""
        ...

    def require(self) -> None:
        """Raise unless there is a ledger."""
        ...

    def is_empty(self) -> bool:
        """True while nothing was committed to it, and no key registered: only then may keys be made for it."""
        ...

    def migrate(self) -> Sequence[str]:
        """Bring it to the newest schema; return the names of the steps that were applied."""
        ...

    def keys(self, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now."""
        ...

    def records(self) -> Iterator[Found]:
        """Yield every committed record as one snapshot, for the verifier."""
        ...

    def reads(self) -> ClosableReads:
        """Open it for reading."""
        ...

    def checkpoints_seen(self) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
        """Return the last checkpoint, None before the first, and the streams that none signs over."""
        ...

    def discrepancies(self, secret: DeploymentSecret) -> Iterator[Discrepancy]:
        """Yield everything that is wrong in the database itself; nothing is changed."""
        ...

    def durability(self, *, needs_standby: bool) -> Durability:
        """Return what it promises of an acknowledged commit, and which of its settings break that promise."""
        ...

    def outbox(self, owner: str, clock: Clock) -> tuple[Outbox, Callable[[], None]]:
        """Open the undelivered records for a relay without a ledger, and what gives up its name when it has ended."""
        ...

    def replays(self, sink: str) -> Replays:
        """Open what was delivered, for the sink of this name."""
        ...

    def open(self, parts: LedgerParts) -> Opened:
        """Open the ledger, brought to the newest schema before."""
        ...
