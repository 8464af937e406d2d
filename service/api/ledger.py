"""The routes of the ledger as a whole: its streams, its checkpoints, and what proves a single record."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from service.api.audit import AUDITED_READ, RecordAnswer, record_answer
from service.api.fields import Cursor as NextCursor
from service.api.fields import Links, RecordIdPath, Sha256, Time, Uuid
from service.api.methods import get
from service.api.queries import Cursor, Limit
from service.api.request import ApiRequest, Reading
from service.operations.proofs import Proof
from service.ports import CheckpointRow, StreamRow
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.checkpoint import CheckpointTip


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stream. `anchored` is the last number that a checkpoint names, `checkpoint` that checkpoint's number."""

    stream_id: Annotated[Uuid, Meta(description="The id of the stream.")]
    opened_at: Annotated[Time, Meta(description="When it was opened.")]
    records: Annotated[int, Meta(description="How many records it holds: the number of the last one.")]
    record_hash: Annotated[
        str, Meta(description="The hash of its last record; empty when it has none.", pattern="^([0-9a-f]{64})?$")
    ]
    observed_at: Annotated[Time | None, Meta(description="When its last record was sealed; null when it has none.")]
    closed: Annotated[bool, Meta(description="True when nothing but a checkpoint follows.")]
    delivered: Annotated[
        int, Meta(description="The last number up to which the sink has acknowledged, or a record is parked.")
    ]
    anchored: Annotated[int | None, Meta(description="The last number that a checkpoint names; null when none does.")]
    checkpoint: Annotated[int | None, Meta(description="The number of that checkpoint.")]
    links: Annotated[Links, Meta(description="Where its records are.")]


class StreamsAnswer(msgspec.Struct, frozen=True):
    """One page of streams, last opened first."""

    streams: Annotated[Sequence[StreamAnswer], Meta(description="The streams, last opened first.")]
    next_cursor: NextCursor


class CheckpointAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint: `signature` is the Ed25519 signature (base64) over the UTF-8 bytes of the record's `body`.

    `certificate` is the SHA-256 of the raw public key that made it.
    """

    number: Annotated[int, Meta(description="The number of the checkpoint, from 1.")]
    signature: Annotated[
        str,
        Meta(
            description="Ed25519, over the UTF-8 bytes of the body of the record, in Base64.",
            extra_json_schema={"format": "byte"},
        ),
    ]
    certificate: Annotated[
        str, Meta(description="SHA-256 of the raw public key.", extra_json_schema={"pattern": "^sha256:[0-9a-f]{64}$"})
    ]
    record: Annotated[RecordAnswer, Meta(description="The record that the checkpoint is.")]


class CheckpointsAnswer(msgspec.Struct, frozen=True):
    """One page of checkpoints, the last one first."""

    checkpoints: Annotated[Sequence[CheckpointAnswer], Meta(description="The checkpoints, the last one first.")]
    next_cursor: NextCursor


class ProofAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What proves a record to whoever holds the public key; without a checkpoint yet, only what it is.

    `hashes` are those of the stream's records from `tip.from` to `tip.number`; their raw bytes, one after another,
    hash to `tip.leaves`, and `tip` stands in the checkpoint's body.
    """

    record: Annotated[RecordAnswer, Meta(description="The record that is proved.")]
    checkpoint: Annotated[
        CheckpointAnswer | None, Meta(description="The first checkpoint that covers it; null before there is one.")
    ]
    tip: Annotated[CheckpointTip | None, Meta(description="The entry of the checkpoint that covers it.")]
    hashes: Annotated[
        Sequence[Sha256], Meta(description="Those of the records of the stream from `tip.from` to `tip.number`.")
    ]


@get("/v1/audit/streams", opt=AUDITED_READ)
async def list_streams(reading: Reading, cursor: Cursor = None, limit: Limit = 100) -> StreamsAnswer:
    """List the streams of the ledger, last opened first: how far each goes, was delivered and is anchored."""
    page = await reading.streams(cursor, limit)
    return StreamsAnswer([_stream(row) for row in page.rows], page.next_cursor)


@get("/v1/audit/checkpoints", opt=AUDITED_READ)
async def list_checkpoints(
    request: ApiRequest, reading: Reading, cursor: Cursor = None, limit: Limit = 100
) -> CheckpointsAnswer:
    """List the checkpoints, the last one first, each with its signature and its record."""
    page = await reading.checkpoints(cursor, limit)
    return CheckpointsAnswer([_checkpoint(request, row) for row in page.rows], page.next_cursor)


@get("/v1/audit/records/{record_id:str}/proof", opt=AUDITED_READ)
async def get_proof(request: ApiRequest, reading: Reading, record_id: RecordIdPath) -> ProofAnswer:
    """Return what proves a record to whoever holds the public key: see docs/audit-format.md, section 7."""
    return _proof(request, await reading.proof(record_id))


def _stream(row: StreamRow) -> StreamAnswer:
    return StreamAnswer(
        stream_id=row.stream_id,
        opened_at=rfc3339_nanos(row.opened_ns),
        records=row.number,
        record_hash=row.record_hash,
        observed_at=rfc3339_nanos(row.observed_ns) if row.number else None,
        closed=row.is_closed,
        delivered=row.delivered,
        anchored=row.anchored,
        checkpoint=row.checkpoint,
        links={"records": f"/v1/audit/records?stream_id={row.stream_id}"},
    )


def _checkpoint(request: ApiRequest, row: CheckpointRow) -> CheckpointAnswer:
    return CheckpointAnswer(
        number=row.number,
        signature=row.signature,
        certificate=row.fingerprint,
        record=record_answer(request, row.record),
    )


def _proof(request: ApiRequest, proof: Proof) -> ProofAnswer:
    return ProofAnswer(
        record=record_answer(request, proof.record),
        checkpoint=_checkpoint(request, proof.checkpoint) if proof.checkpoint else None,
        tip=proof.tip,
        hashes=proof.hashes,
    )
