"""The checkpoint, a signed record that names the tips of the ledger (docs/audit-format.md, section 6)."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from telemetry import names
from telemetry.audit.canonical import Value

Number = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
HexHash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class CheckpointTip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from"}):
    """The last record of one stream, and a hash over all records from `first` on, which no checkpoint covered before.

    `first` is `number` + 1 when no record was added, for example when a stream is only closed.
    """

    stream_id: Annotated[str, msgspec.Meta(description="The stream.", extra_json_schema={"format": "uuid"})]
    first: Annotated[Number, msgspec.Meta(description="The first number that no earlier checkpoint covers.")]
    number: Annotated[Number, msgspec.Meta(description="The last number of the stream that is covered.")]
    hash: Annotated[HexHash, msgspec.Meta(description="The hash of that record.")]
    leaves: Annotated[
        HexHash, msgspec.Meta(description="SHA-256 over the raw hashes of the records from `from` to `number`.")
    ]
    closed: Annotated[bool, msgspec.Meta(description="True when nothing but a checkpoint follows.")]


class Checkpoint(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={
        "number": names.AUDITRACE_CHECKPOINT_NUMBER,
        "tips": names.AUDITRACE_CHECKPOINT_TIPS,
        "streams": names.AUDITRACE_CHECKPOINT_STREAMS,
        "records": names.AUDITRACE_CHECKPOINT_RECORDS,
        "prev_number": names.AUDITRACE_CHECKPOINT_PREV_NUMBER,
        "prev_hash": names.AUDITRACE_CHECKPOINT_PREV_HASH,
        "prev_signature": names.AUDITRACE_CHECKPOINT_PREV_SIGNATURE,
    },
):
    """The statement of a checkpoint record; the first checkpoint has no `prev_hash` and no `prev_signature`.

    Only the first checkpoint after a restore has `prev_number`. The numbers between the two may belong to checkpoints
    that the restored database does not hold.
    """

    number: Number
    tips: tuple[CheckpointTip, ...]
    streams: Count
    records: Count
    prev_number: Count | None = None
    prev_hash: HexHash | None = None
    prev_signature: str | None = None

    @property
    def before(self) -> int:
        """The number of the checkpoint before; 0 on the first."""
        return self.number - 1 if self.prev_number is None else self.prev_number

    def attributes(self) -> dict[str, Value]:
        """Return the attributes of the checkpoint record."""
        stated: dict[str, Value] = msgspec.to_builtins(self)
        return stated


def parse(attributes: Mapping[str, object]) -> Checkpoint | None:
    """Return the checkpoint that a record's attributes state, None when they do not have the form of one."""
    try:
        return msgspec.convert(dict(attributes), Checkpoint)
    except msgspec.ValidationError:
        return None


def leaves(hashes: Iterable[bytes]) -> str:
    """Return the SHA-256 over the concatenation of raw record hashes, in the order of their numbers."""
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def sign(key: Ed25519PrivateKey, body: bytes) -> str:
    """Return the value of `audit.integrity.value` for a record body: base64 of the Ed25519 signature.

    Source: RFC 8032, 5.1.6; RFC 4648, section 4.
    """
    return base64.b64encode(key.sign(body)).decode()


def is_signed(body: bytes, signature: str, keys: Sequence[Ed25519PublicKey]) -> bool:
    """Return whether `signature` is the signature of `body` under one of `keys`.

    Source: RFC 8032, 5.1.7.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_holds(key, raw, body) for key in keys)


def _holds(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True
