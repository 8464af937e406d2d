"""What clients get about records, streams and checkpoints, and how what is stored becomes such an answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct

from service.api.fields import (
    JOB,
    RECEIPT,
    Links,
    NextCursorField,
    RecordHash,
    RecordId,
    SpanId,
    StreamId,
    Time,
    TraceId,
    about,
    example_of,
)
from service.api.request import ApiRequest
from service.operations.proofs import Proof
from service.ports import CheckpointRow, Page, RecordRow, StreamRow
from telemetry import names
from telemetry.audit.body_view import view_body
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.checkpoint import CheckpointTip

_TIP = CheckpointTip(
    stream_id=RECEIPT.stream_id,
    first=42,
    number=42,
    hash=RECEIPT.record_hash,
    leaves="4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
    closed=False,
)
_ATTRIBUTES = {"audit.actor.id": "anna", "audit.action": "CREATE", "audit.outcome": "success"}
_BODY = '{"attributes":{"audit.action":"CREATE","audit.actor.id":"anna"},"event_name":"job.create"}'
_RECORD_LINKS = {"self": f"/v1/audit/records/{RECEIPT.record_id}", "job": JOB}
_STREAM_LINKS = {"records": f"/v1/audit/records?stream_id={RECEIPT.stream_id}"}
_SIGNATURE = "fJHh3Fh0yYbGx6oJ8hQyQ3rZ0b5Xk0e9z9y1mQm0v4o6mJx0f5a7gk1m3b9Xw2c4d6e8f0a2b4c6d8e0f2a4Bg=="
_CERTIFICATE = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


class RecordAnswer(Struct, frozen=True, kw_only=True):
    """A committed record. `body` is the canonical text; `record_hash` is its SHA-256."""

    record_id: Annotated[RecordId, about("The id of the record.")]
    stream_id: Annotated[StreamId, about("The stream that it stands in.")]
    sequence_number: Annotated[int, about("Its number in the stream, from 1.", 42)]
    record_hash: Annotated[RecordHash, about("SHA-256 of the UTF-8 bytes of `body`.")]
    event_name: Annotated[str, about("What took place.", "job.create", enum=list(names.ACTIONS))]
    timestamp: Annotated[Time, about("When it took place.")]
    trace_id: TraceId
    span_id: SpanId
    attributes: Annotated[Mapping[str, Any], about("The attributes of the body: docs/audit-format.md.", _ATTRIBUTES)]
    body: Annotated[str, about("The canonical text (RFC 8785) that is hashed and delivered.", _BODY)]
    delivery: Annotated[
        str, about("How far it is on its way to the sink.", "delivered", enum=["committed", "delivered", "parked"])
    ]
    links: Annotated[Links, about("The paths of the record and its job, and the address of its trace.", _RECORD_LINKS)]


class RecordsAnswer(Struct, frozen=True):
    """One page of records, newest first by observed time, or oldest first where the query asks for it."""

    records: Annotated[Sequence[RecordAnswer], about("The records, in the order that was asked for.")]
    next_cursor: NextCursorField


class StreamAnswer(Struct, frozen=True, kw_only=True):
    """A stream. `anchored` is the last number that a checkpoint names, `checkpoint` that checkpoint's number."""

    stream_id: Annotated[StreamId, about("The id of the stream.")]
    opened_at: Annotated[Time, about("When it was opened.")]
    records: Annotated[int, about("How many records it holds: the number of the last one.", 42)]
    record_hash: Annotated[
        RecordHash, about("The hash of its last record; empty when it has none.", pattern="^([0-9a-f]{64})?$")
    ]
    observed_at: Annotated[Time | None, about("When its last record was sealed; null when it has none.")]
    closed: Annotated[bool, about("True when nothing but a checkpoint follows.", False)]
    delivered: Annotated[
        int, about("The last number up to which the sink has acknowledged, or a record is parked.", 41)
    ]
    anchored: Annotated[int | None, about("The last number that a checkpoint names; null when none does.", 40)]
    checkpoint: Annotated[int | None, about("The number of that checkpoint.", 7)]
    links: Annotated[Links, about("The path of its records.", _STREAM_LINKS)]


class StreamsAnswer(Struct, frozen=True):
    """One page of streams, last opened first."""

    streams: Annotated[Sequence[StreamAnswer], about("The streams, last opened first.")]
    next_cursor: NextCursorField


_CHECKPOINT_RECORD = {**example_of(RecordAnswer), "event_name": "audit.checkpoint"}


class CheckpointAnswer(Struct, frozen=True, kw_only=True):
    """A checkpoint: `signature` is the Ed25519 signature (base64) over the UTF-8 bytes of the record's `body`.

    `certificate` is the SHA-256 of the raw public key that made it.
    """

    number: Annotated[int, about("The number of the checkpoint, from 1.", 8)]
    signature: Annotated[
        str, about("Ed25519, over the UTF-8 bytes of the body of the record, in Base64.", _SIGNATURE, format="byte")
    ]
    certificate: Annotated[str, about("SHA-256 of the raw public key.", _CERTIFICATE, pattern="^sha256:[0-9a-f]{64}$")]
    record: Annotated[RecordAnswer, about("The record that is the checkpoint.", _CHECKPOINT_RECORD)]


class CheckpointsAnswer(Struct, frozen=True):
    """One page of checkpoints, the last one first."""

    checkpoints: Annotated[Sequence[CheckpointAnswer], about("The checkpoints, the last one first.")]
    next_cursor: NextCursorField


class ProofAnswer(Struct, frozen=True, kw_only=True):
    """What proves a record to a holder of the public key; before there is a checkpoint, the record alone.

    `hashes` are those of the stream's records from `tip.from` to `tip.number`; their raw bytes, one after another,
    hash to `tip.leaves`, and `tip` stands in the checkpoint's body.
    """

    record: Annotated[RecordAnswer, about("The record that is proved.")]
    checkpoint: Annotated[
        CheckpointAnswer | None, about("The first checkpoint that covers it; null before there is one.")
    ]
    tip: Annotated[CheckpointTip | None, about("The entry of the checkpoint that covers it.", _TIP)]
    hashes: Annotated[
        Sequence[RecordHash], about("Those of the records of the stream from `tip.from` to `tip.number`.")
    ]


def record_answer(request: ApiRequest, row: RecordRow) -> RecordAnswer:
    """Return a record as clients see it."""
    body = view_body(row.body)
    job_id = body.attributes.get(names.AUDITRACE_JOB_ID)
    return RecordAnswer(
        record_id=row.record_id,
        stream_id=row.stream_id,
        sequence_number=row.sequence_number,
        record_hash=row.record_hash,
        event_name=row.event_name,
        timestamp=body.timestamp,
        trace_id=body.trace_id,
        span_id=body.span_id,
        attributes=body.attributes,
        body=row.body,
        delivery=row.delivery,
        links={
            "self": f"/v1/audit/records/{row.record_id}",
            **({"job": f"/v1/jobs/{job_id}"} if job_id else {}),
            **request.trace_link(body.trace_id),
        },
    )


def records_answer(request: ApiRequest, page: Page[RecordRow]) -> RecordsAnswer:
    """Return a page of records as clients see it."""
    return RecordsAnswer([record_answer(request, row) for row in page.rows], page.next_cursor)


def stream_answer(row: StreamRow) -> StreamAnswer:
    """Return a stream as clients see it."""
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


def checkpoint_answer(request: ApiRequest, row: CheckpointRow) -> CheckpointAnswer:
    """Return a checkpoint as clients see it."""
    return CheckpointAnswer(
        number=row.number,
        signature=row.signature,
        certificate=row.fingerprint,
        record=record_answer(request, row.record),
    )


def proof_answer(request: ApiRequest, proof: Proof) -> ProofAnswer:
    """Return a proof as clients see it."""
    return ProofAnswer(
        record=record_answer(request, proof.record),
        checkpoint=checkpoint_answer(request, proof.checkpoint) if proof.checkpoint else None,
        tip=proof.tip,
        hashes=proof.hashes,
    )
