"""The proof of a single record: the checkpoint that covers it, and the hashes that lead to that checkpoint."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.ports import CheckpointRow, Reads, RecordRow
from telemetry.audit.body_view import view_body
from telemetry.audit.canonical import sha256_hex
from telemetry.audit.checkpoint import CheckpointTip, is_signed, leaves, parse

_CHECKPOINTS_AT_ONCE: Final = 100


class Proof(msgspec.Struct, frozen=True):
    """A record, the checkpoint and the tip that cover it, and the stream's hashes from `tip.first` to `tip.number`.

    With the public key, this is enough for the check: the hash of the record's body is the entry of its number; all
    hashes together give `tip.leaves`; the tip is in the checkpoint's body; the body is signed. Before a checkpoint
    covers the record, checkpoint and tip are None and there are no hashes.
    """

    record: RecordRow
    checkpoint: CheckpointRow | None
    tip: CheckpointTip | None
    hashes: Sequence[str]


def proof_of(record: RecordRow, reads: Reads) -> Proof:
    """Return the proof of `record`; reads the database, and blocks."""
    for checkpoint in _candidates(record, reads):
        tip = _covering(checkpoint, record)
        if tip is not None:
            return Proof(record, checkpoint, tip, reads.record_hashes(record.stream_id, tip.first, tip.number))
    return Proof(record, None, None, ())


def is_signed_over(proof: Proof, keys: Sequence[Ed25519PublicKey]) -> bool:
    """Tell whether a checkpoint that one of these keys signed covers the record as it is."""
    checkpoint, tip, record = proof.checkpoint, proof.tip, proof.record
    if checkpoint is None or tip is None or len(proof.hashes) != tip.number - tip.first + 1:
        return False
    is_its_hash = proof.hashes[record.sequence_number - tip.first] == sha256_hex(record.body.encode())
    is_of_tip = leaves(bytes.fromhex(each) for each in proof.hashes) == tip.leaves
    return is_its_hash and is_of_tip and is_signed(checkpoint.record.body.encode(), checkpoint.signature, keys)


def _candidates(record: RecordRow, reads: Reads) -> Iterator[CheckpointRow]:
    """Yield the checkpoints that were sealed after the record; then the others, because a clock may have stepped."""
    if record.sequence_number > reads.anchored(record.stream_id):
        return
    start = reads.checkpoint_before(record.observed_ns)
    yield from _behind(start, None, reads)
    yield from _behind(0, start, reads)


def _behind(number: int, last: int | None, reads: Reads) -> Iterator[CheckpointRow]:
    while rows := reads.checkpoints_behind(number, _CHECKPOINTS_AT_ONCE):
        for row in rows:
            if last is not None and row.number > last:
                return
            yield row
        number = rows[-1].number


def _covering(checkpoint: CheckpointRow, record: RecordRow) -> CheckpointTip | None:
    stated = parse(view_body(checkpoint.record.body).attributes)
    tips = stated.tips if stated else ()
    return next(
        (
            tip
            for tip in tips
            if tip.stream_id == record.stream_id and tip.first <= record.sequence_number <= tip.number
        ),
        None,
    )
