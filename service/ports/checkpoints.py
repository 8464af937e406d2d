"""Checkpoints: who writes them, with which keys, and what is wrong in a ledger."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from telemetry.audit.signer import Signer


class RefusedStream(msgspec.Struct, frozen=True):
    """A stream that no checkpoint signs over, because the database does not hold what its lane committed."""

    stream_id: str
    reason: str


class Checkpointed(msgspec.Struct, frozen=True):
    """What one turn of the checkpoint writer committed."""

    numbers: Sequence[int]
    closed: Sequence[str]
    refused: Sequence[RefusedStream]


class RegisteredKey(msgspec.Struct, frozen=True):
    """A public key that signs checkpoints from `first_checkpoint` on, until the one that was registered after it."""

    fingerprint: str
    public_pem: str
    first_checkpoint: int


class Discrepancy(msgspec.Struct, frozen=True):
    """What a reconciliation found wrong: by which check, at which place, and what should be there and is not."""

    check: str
    place: str
    detail: str


class LastCheckpoint(msgspec.Struct, frozen=True):
    """The last committed checkpoint, whoever wrote it."""

    number: int
    observed_ns: int


class CheckpointWriter(Protocol):
    """Writes checkpoints for one process; one process of the deployment at a time holds the lease."""

    def hold(self) -> bool:
        """Take or renew the lease; False while another process that is alive holds it."""
        ...

    def release(self) -> None:
        """Give the lease back, so that the next writer need not wait for it to expire."""
        ...

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all streams that changed; None without the lease.

        Raises:
            SettingsError: this process does not hold the private key that signs now; nothing was written.
            BrokenLedgerError: what earlier checkpoints left contradicts itself; nothing was written.
            TryLaterError: nothing was committed.
        """
        ...

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint, whoever wrote it; None before the first."""
        ...

    def register(self, signer: Signer) -> None:
        """Register the first public key of a ledger that knows none and holds no checkpoint yet.

        Raises:
            SettingsError: the ledger was begun with another ledger secret than this process has.
        """
        ...

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last one signs now.

        Raises:
            BrokenLedgerError: somebody without the ledger secret stored one of them.
        """
        ...

    def rotate(self, new: Signer) -> int:
        """Let `new` sign from the next checkpoint on, by a record that the old key signs; return its number.

        Raises:
            SettingsError: this process does not hold the private key that signs now, or `new` signs or has signed.
            TryLaterError: nothing was committed.
        """
        ...

    def restore(self) -> Checkpointed:
        """Close every stream of a database that was set back, and go on behind numbers that may have been used.

        A record says so (`audit.restore`), and so does the first checkpoint after it, in the same transaction: it
        follows on the last one that is left and leaves numbers out.

        Raises:
            SettingsError: this process does not hold the private key that signs now; nothing was written.
            BrokenLedgerError: what earlier checkpoints left contradicts itself; nothing was written.
            TryLaterError: processes work on the database, or it cannot be used now; nothing was written.
        """
        ...

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint, whoever wrote it, refused."""
        ...
