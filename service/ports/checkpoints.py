"""Checkpoints: their writer, its keys, and the problems that it finds in a ledger."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from service.ports.reading import RecordRow
from telemetry.audit.signer import Signer


class RefusedStream(msgspec.Struct, frozen=True):
    """A stream that no checkpoint signs over, because the database does not hold what its lane committed."""

    stream_id: str
    reason: str


class Checkpointed(msgspec.Struct, frozen=True):
    """The result of one turn of the checkpoint writer: numbers of checkpoints, closed streams, refused streams."""

    numbers: Sequence[int]
    closed: Sequence[str]
    refused: Sequence[RefusedStream]


class RegisteredKey(msgspec.Struct, frozen=True):
    """A public key that signs checkpoints from `first_checkpoint` on, until the next key is registered."""

    fingerprint: str
    public_pem: str
    first_checkpoint: int


class Discrepancy(msgspec.Struct, frozen=True):
    """A problem that a reconciliation found: the check, the place, and what is missing or different there."""

    check: str
    place: str
    detail: str


class LastCheckpoint(msgspec.Struct, frozen=True):
    """The last committed checkpoint of the ledger, of any process."""

    number: int
    observed_ns: int


class CheckpointWriter(Protocol):
    """Writes checkpoints for one process; one process of the deployment at a time holds the lease."""

    def hold(self) -> bool:
        """Take or renew the lease; False while another process that is alive holds it."""
        ...

    def release(self) -> None:
        """Give the lease back, so that the next writer does not wait until it ends."""
        ...

    def write(self) -> Checkpointed | None:
        """Close orphaned streams and sign the tips of all streams that changed; None without the lease.

        Raises:
            SettingsError: this process does not hold the private key that signs now; nothing was written.
            BrokenLedgerError: the stored state of earlier checkpoints contradicts itself; nothing was written.
            TryLaterError: nothing was committed.
        """
        ...

    def last(self) -> LastCheckpoint | None:
        """Return the last checkpoint, of any process; None before the first."""
        ...

    def register(self, signer: Signer) -> None:
        """Register the first public key of a ledger that has no key and no checkpoint yet.

        Raises:
            SettingsError: this process has another ledger secret than the one that the ledger was begun with.
        """
        ...

    def registered(self) -> Sequence[RegisteredKey]:
        """Return the public keys of the ledger in the order of their registration; the last key signs now.

        Raises:
            BrokenLedgerError: one of the keys was stored without the ledger secret.
        """
        ...

    def rotate(self, new: Signer) -> int:
        """Let `new` sign from the next checkpoint on, by a record that the old key signs; return that number.

        Raises:
            SettingsError: this process does not hold the private key that signs now, or `new` signs or has signed.
            TryLaterError: nothing was committed.
        """
        ...

    def restore(self) -> Checkpointed:
        """Close every stream of a database that was set back, and continue after all numbers that may have been used.

        A record states this (`audit.restore`), and so does the first checkpoint after it, in the same transaction: it
        names the last checkpoint that is left as the one before it, and skips numbers.

        Raises:
            SettingsError: this process does not hold the private key that signs now; nothing was written.
            BrokenLedgerError: the stored state of earlier checkpoints contradicts itself; nothing was written.
            TryLaterError: other processes use the database, or it cannot be used now; nothing was written.
        """
        ...

    def refused(self) -> Sequence[RefusedStream]:
        """Return the streams that the last checkpoint, of any process, refused."""
        ...

    def holds(self, record: RecordRow) -> bool:
        """Tell whether a lane of this deployment committed this record after the last checkpoint of its stream."""
        ...
