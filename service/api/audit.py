"""The routes of the audit trail: list and filter records, one record, the trail of a job."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from litestar.di import NamedDependency, Provide
from msgspec import Meta

from service.api.fields import Cursor as NextCursor
from service.api.fields import JobIdPath, Links, RecordIdPath, Sha256, SpanId, Time, TraceId, Uuid
from service.api.messages import trace_link
from service.api.methods import get
from service.api.parts import parts_of
from service.api.queries import Cursor, Limit, provide_where
from service.api.request import EVENT, ApiRequest, Reading
from service.ports import Page, RecordFilter, RecordRow
from telemetry import names
from telemetry.audit.body_view import view_body

AUDITED_READ: Final = {EVENT: names.EVENT_AUDIT_READ}


class RecordAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A committed record. `body` is the canonical text of which `record_hash` is the SHA-256."""

    record_id: Annotated[Uuid, Meta(description="The id of the record.")]
    stream_id: Annotated[Uuid, Meta(description="The stream that it stands in.")]
    sequence_number: Annotated[int, Meta(description="Its number in the stream, from 1.")]
    record_hash: Annotated[Sha256, Meta(description="SHA-256 of the UTF-8 bytes of `body`.")]
    event_name: Annotated[str, Meta(description="What took place.", extra_json_schema={"enum": list(names.ACTIONS)})]
    timestamp: Annotated[Time, Meta(description="When it took place.")]
    trace_id: TraceId
    span_id: SpanId
    attributes: Annotated[Mapping[str, Any], Meta(description="The attributes of the body: see docs/audit-format.md.")]
    body: Annotated[str, Meta(description="The canonical text (RFC 8785) that is hashed and delivered.")]
    delivery: Annotated[
        str,
        Meta(
            description="How far it is on its way to the sink.",
            extra_json_schema={"enum": ["committed", "delivered", "parked"]},
        ),
    ]
    links: Annotated[Links, Meta(description="Where the record, its job and its trace are.")]


class RecordsAnswer(msgspec.Struct, frozen=True):
    """One page of records, newest first by observed time."""

    records: Annotated[Sequence[RecordAnswer], Meta(description="The records, newest first by observed time.")]
    next_cursor: NextCursor


@get("/v1/audit/records", opt=AUDITED_READ, dependencies={"where": Provide(provide_where)})
async def list_records(
    request: ApiRequest,
    reading: Reading,
    where: NamedDependency[RecordFilter],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> RecordsAnswer:
    """List the records of the tenant that match all filters. Reading is recorded itself."""
    return _page(request, await reading.records(where, cursor, limit))


@get("/v1/audit/records/{record_id:str}", opt=AUDITED_READ)
async def get_record(request: ApiRequest, reading: Reading, record_id: RecordIdPath) -> RecordAnswer:
    """Return one record with its body, hash and delivery state. Reading is recorded itself."""
    return record_answer(request, await reading.record(record_id))


@get("/v1/jobs/{job_id:str}/audit", opt=AUDITED_READ)
async def get_job_trail(
    request: ApiRequest, reading: Reading, job_id: JobIdPath, cursor: Cursor = None, limit: Limit = 100
) -> RecordsAnswer:
    """List the records of a job, newest first. Reading is recorded itself."""
    return _page(request, await reading.of_job(job_id, cursor, limit))


def _page(request: ApiRequest, page: Page) -> RecordsAnswer:
    return RecordsAnswer([record_answer(request, row) for row in page.rows], page.next_cursor)


def record_answer(request: ApiRequest, row: RecordRow) -> RecordAnswer:
    """Return a record as clients see it."""
    body = view_body(row.body)
    job_id = body.attributes.get(names.AUDITRACE_JOB_ID)
    template = parts_of(request.scope).settings.trace_url_template
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
            **trace_link(body.trace_id, template),
        },
    )
