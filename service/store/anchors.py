"""The rows of checkpoints: the last one, to which the next one links, and the anchors of the streams."""

from collections.abc import Sequence

import msgspec

from service.errors import BrokenLedgerError
from service.ports import RegisteredKey
from service.secrets import DeploymentSecret
from service.store.queries import Execute
from telemetry.audit.chain import Tip
from telemetry.audit.checkpoint import Checkpoint


class StoredCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint as the database stores it; `streams` and `records` are the totals of all checkpoints so far."""

    number: int
    record_id: str
    hash: str
    signature: str
    fingerprint: str
    streams: int
    records: int
    observed_ns: int
    mac: str

    def is_authentic(self, secret: DeploymentSecret) -> bool:
        """Tell whether a process of this deployment stored it."""
        stated = (self.number, self.hash, self.signature, self.fingerprint, self.streams, self.records)
        return self.mac == secret.checkpoint_mac(*stated)


def last_stored(execute: Execute) -> StoredCheckpoint | None:
    """Return the last checkpoint as stored, without checks; None before the first."""
    for row in execute("last_checkpoint", {}):
        return StoredCheckpoint(*row)
    return None


def last_to_follow(
    execute: Execute, secret: DeploymentSecret, keys: Sequence[RegisteredKey]
) -> StoredCheckpoint | None:
    """Return the last checkpoint after a check that another one can follow it; None before the first.

    Raises:
        BrokenLedgerError: it was not stored by this deployment, was not signed by the key of its time, or the anchors
            are not those that it left.
    """
    last = last_stored(execute)
    if last is not None:
        if not last.is_authentic(secret):
            raise BrokenLedgerError(f"checkpoint {last.number} was not stored by a process of this deployment")
        of_its_time = [key.fingerprint for key in keys if key.first_checkpoint <= last.number]
        if last.fingerprint not in of_its_time[-1:]:
            raise BrokenLedgerError(f"checkpoint {last.number} was signed by a key that the database does not name")
    ((streams, records),) = execute("anchor_totals", {})
    if (streams, records) != ((last.streams, last.records) if last else (0, 0)):
        raise BrokenLedgerError("the anchors of the streams are not those that the last checkpoint left")
    return last


def store(
    execute: Execute,
    secret: DeploymentSecret,
    stated: Checkpoint,
    *,
    record: Tip,
    signature: str,
    fingerprint: str,
) -> StoredCheckpoint:
    """Store a checkpoint whose record is sealed, and move the anchors of the streams that it names."""
    written = StoredCheckpoint(
        number=stated.number,
        record_id=record.record_id,
        hash=record.hash,
        signature=signature,
        fingerprint=fingerprint,
        streams=stated.streams,
        records=stated.records,
        observed_ns=record.observed_ns,
        mac=secret.checkpoint_mac(stated.number, record.hash, signature, fingerprint, stated.streams, stated.records),
    )
    execute("add_checkpoint", msgspec.structs.asdict(written))
    for tip in stated.tips:
        anchor = {
            "stream_id": tip.stream_id,
            "number": tip.number,
            "hash": tip.hash,
            "closed": int(tip.closed),
            "checkpoint": stated.number,
            "mac": secret.anchor_mac(tip.stream_id, tip.number, tip.hash, int(tip.closed), stated.number),
        }
        if not list(execute("move_anchor", anchor)):
            execute("add_anchor", anchor)
    return written
