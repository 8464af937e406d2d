"""The routes of the audit trail: records, streams, checkpoints, proofs, and the export of all."""

from functools import partial
from typing import Annotated, Final

import litestar
from litestar.params import QueryParameter
from litestar.response import Stream

from service.api.audit_answers import (
    CheckpointsAnswer,
    ProofAnswer,
    RecordAnswer,
    RecordsAnswer,
    StreamsAnswer,
    checkpoint_answer,
    proof_answer,
    record_answer,
    records_answer,
    stream_answer,
)
from service.api.fields import RecordIdPath, sends
from service.api.follow import EVENTS, Follow, LastEventId, follow_records
from service.api.problems import refusals
from service.api.queries import WHERE, Cursor, Direction, Limit, Where
from service.api.request import ApiRequest, AuditReads, context_of, in_progress
from service.api.routing import EVENT, MEDIA_TYPES, STREAM, get
from service.operations.exports import AuditExport, ExportFormat
from service.ports import ListingOrder
from service.roles import AUDITOR, require
from telemetry import names

Form = Annotated[
    ExportFormat, QueryParameter(name="format", description="The form of the export; `otlp-json` when absent.")
]

# Media type, and the end of the name under which it is saved. The charset of texts is added where all answers are made.
FORMS: Final = {
    ExportFormat.OTLP_JSON: ("application/x-ndjson", "otlp.jsonl"),
    ExportFormat.JSONL: ("application/x-ndjson", "jsonl"),
    ExportFormat.CSV: ("text/csv; header=present", "csv"),
}

_list: Final = partial(get, opt={EVENT: names.EVENT_AUDIT_READ}, responses=refusals(403))
_get: Final = partial(get, opt={EVENT: names.EVENT_AUDIT_READ}, responses=refusals(403, 404))


@_list("/v1/audit/records", opt={EVENT: names.EVENT_AUDIT_READ, STREAM: EVENTS}, dependencies=WHERE)
async def list_records(
    request: ApiRequest,
    reading: AuditReads,
    where: Where,
    order: Direction = ListingOrder.DESC,
    cursor: Cursor = None,
    limit: Limit = 100,
    follow: Follow = None,
    last_event_id: LastEventId = None,
) -> RecordsAnswer | Stream:
    """List the records of the tenant that match all filters, or follow them. The read is recorded too.

    A filter that is given several times matches any of its values; `not_` before its name excludes them.
    """
    if follow is not None:
        return await follow_records(request, where, cursor, last_event_id)
    return records_answer(request, await reading.records(where, cursor, limit, order))


@_get("/v1/audit/records/{record_id:str}")
async def get_record(request: ApiRequest, reading: AuditReads, record_id: RecordIdPath) -> RecordAnswer:
    """Return one record with its body, hash and delivery state. The read is recorded too."""
    return record_answer(request, await reading.record(record_id))


@_list("/v1/audit/streams")
async def list_streams(reading: AuditReads, cursor: Cursor = None, limit: Limit = 100) -> StreamsAnswer:
    """List the streams of the ledger, last opened first: how far each goes, was delivered and is anchored."""
    page = await reading.streams(cursor, limit)
    return StreamsAnswer([stream_answer(row) for row in page.rows], page.next_cursor)


@_list("/v1/audit/checkpoints")
async def list_checkpoints(
    request: ApiRequest, reading: AuditReads, cursor: Cursor = None, limit: Limit = 100
) -> CheckpointsAnswer:
    """List the checkpoints, the last one first, each with its signature and its record."""
    page = await reading.checkpoints(cursor, limit)
    return CheckpointsAnswer([checkpoint_answer(request, row) for row in page.rows], page.next_cursor)


@get(
    "/v1/audit/records/{record_id:str}/proof",
    opt={EVENT: names.EVENT_AUDIT_VERIFY},
    responses=refusals(403, 404),
)
async def get_proof(request: ApiRequest, reading: AuditReads, record_id: RecordIdPath) -> ProofAnswer:
    """Return what proves a record to a holder of the public key: see docs/audit-format.md, section 7."""
    return proof_answer(request, await reading.proof(record_id))


# GET alone: a HEAD would be on record as an export of everything, and return nothing.
@litestar.get(
    "/v1/audit/export",
    opt={EVENT: names.EVENT_AUDIT_EXPORT, MEDIA_TYPES: sorted({media_type for media_type, _ in FORMS.values()})},
    response_description="The records, in the form that was asked for.",
    response_headers=sends("Content-Disposition"),
    responses=refusals(403),
    dependencies=WHERE,
)
async def export_records(request: ApiRequest, where: Where, form: Form = ExportFormat.OTLP_JSON) -> Stream:
    """Return all records of the tenant that match, oldest first. The export is recorded before it begins.

    An answer that breaks off, without the end that HTTP gives it, is incomplete.
    """
    parts = request.parts
    # Before the export is counted: who may not export takes nobody's place.
    require(request.exchange.credential.roles, AUDITOR)
    parts.exports.admit(in_progress(request))
    context, span = context_of(request.scope), request.exchange.span
    export = AuditExport(parts.services, context, span, parts.reads, parts.bulk_threads)
    media_type, ending = FORMS[form]
    return Stream(
        await export.begin(where, form),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="audit.{ending}"'},
    )
