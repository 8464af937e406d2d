"""Converts rows to values of the service and back, as far as both dialects store them in the same form."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from service.errors import InvalidRequestError
from service.jobs.model import Job, Run, TenantId
from service.ports import (
    ApiKey,
    CheckpointRow,
    IdempotencyEntry,
    KeyOnRecord,
    KeyRecord,
    KeySecret,
    RecordRow,
    StoredRecord,
    StreamRow,
)

Stored: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An integer in a cursor, in the range of a database column."""

NAMED: Final = ("tenant_id = :tenant_id", "name = :name")
WITH_ID: Final = ("key_id = :key_id",)
"""Conditions of the statements about API keys."""

_OF_SECRET: Final = KeySecret.__struct_fields__
_JOB: Final = msgspec.json.Decoder(Job)
_RUN: Final = msgspec.json.Decoder(Run)


def encode(value: Job | Run) -> str:
    """Return a job or run as the JSON document that the store keeps."""
    return msgspec.json.encode(value).decode()


def decode_job(document: str) -> Job:
    """Return the job of a stored document."""
    return _JOB.decode(document)


def decode_run(document: str) -> Run:
    """Return the run of a stored document."""
    return _RUN.decode(document)


def key_of(row: Sequence[Any]) -> ApiKey:
    """Return the API key of a row of the view `present_api_keys`."""
    key_id, name, tenant_id, roles, secret_sha256, created_ns, revoked_ns, expires_ns, person, *present = row
    return ApiKey(
        key_id=key_id,
        name=name,
        tenant_id=TenantId(tenant_id),
        roles=tuple(roles.split()),
        secret_sha256=secret_sha256,
        created_ns=created_ns,
        revoked_ns=revoked_ns,
        expires_ns=expires_ns,
        person=person,
        secret=None if present[0] is None else KeySecret(**dict(zip(_OF_SECRET, present, strict=True))),
    )


def keys_on_record(rows: Iterable[Sequence[Any]]) -> Sequence[KeyOnRecord]:
    """Return the API keys of rows of the query `keys_on_record`: a row for each record of a key, or one without."""
    found: list[KeyOnRecord] = []
    for _, group in groupby(rows, key=itemgetter(0)):
        of_key = list(group)
        records = [KeyRecord(*row[-3:]) for row in of_key if row[-3] is not None]
        found.append(KeyOnRecord(key_of(of_key[0][:-3]), records))
    return found


def run_values(run: Run) -> dict[str, object]:
    """Return the values of the statements `start_run` and `end_run`."""
    return {
        "job_id": run.job_id,
        "number": run.number,
        "status": run.status.value,
        "worker_id": run.worker_id,
        "document": encode(run),
    }


def entry_of(row: Sequence[Any]) -> IdempotencyEntry:
    """Return the entry of a row of the query `remembered`."""
    tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns = row
    return IdempotencyEntry(
        tenant_id=TenantId(tenant_id),
        actor_id=actor_id,
        route=route,
        key_sha256=key_sha256,
        body_sha256=body_sha256,
        job_id=job_id,
        expires_ns=expires_ns,
    )


def record_of_row(row: Sequence[Any]) -> RecordRow:
    """Return the record of a row of the queries `record` and `records`; columns of the order may follow."""
    record_id, stream_id, number, record_hash, event_name, observed_ns, body, delivery, *_order = row
    return RecordRow(
        record_id=record_id,
        stream_id=stream_id,
        sequence_number=number,
        record_hash=record_hash,
        event_name=event_name,
        observed_ns=observed_ns,
        body=body,
        delivery=delivery,
    )


def stream_of(row: Sequence[Any]) -> StreamRow:
    """Return the stream of a row of the query `streams`."""
    stream_id, opened_ns, number, record_hash, observed_ns, closed, delivered, anchored, checkpoint = row
    return StreamRow(
        stream_id=stream_id,
        opened_ns=opened_ns,
        number=number,
        record_hash=record_hash,
        observed_ns=observed_ns,
        is_closed=bool(closed),
        delivered=delivered,
        anchored=anchored,
        checkpoint=checkpoint,
    )


def checkpoint_of(row: Sequence[Any]) -> CheckpointRow:
    """Return the checkpoint of a row of the queries `checkpoints` and `checkpoints_behind`."""
    number, fingerprint, signature, *record = row
    return CheckpointRow(number=number, fingerprint=fingerprint, signature=signature, record=record_of_row(record))


def stored_of(row: Sequence[Any]) -> StoredRecord:
    """Return the record of a row of the queries `stored` and `stored_of_stream`."""
    log_record, resource, scope, *record = row
    return StoredRecord(
        record=record_of_row(record), log_record=bytes(log_record), resource=bytes(resource), scope=bytes(scope)
    )


def encode_cursor(*parts: int | str) -> str:
    """Return an opaque cursor that holds these parts."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, types: Any) -> Any:
    """Return the parts of a cursor, checked against a tuple type.

    Raises:
        InvalidRequestError: it is not a cursor of this listing.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(text, type=types)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("cursor is not one that this listing returned in this order") from error
