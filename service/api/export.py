"""The route that hands out the audit trail as a whole."""

from typing import Annotated, Final

from litestar import get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from litestar.response import Stream

from service.api.documented import DOCUMENTED, Documented
from service.api.parts import parts_of
from service.api.queries import provide_where
from service.api.request import EVENT, ApiRequest, context_of, exchange_of
from service.operations.exports import AuditExport, ExportFormat
from service.ports import RecordFilter
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


# GET alone: a HEAD would be on record as an export of everything, and hand out nothing.
@get(
    "/v1/audit/export",
    opt={
        EVENT: names.EVENT_AUDIT_EXPORT,
        DOCUMENTED: Documented(
            answer="The records, in the form that was asked for.",
            media_types=tuple(dict.fromkeys(media_type for media_type, _ in FORMS.values())),
            headers=("Content-Disposition",),
        ),
    },
    dependencies={"where": Provide(provide_where)},
)
async def export_records(
    request: ApiRequest,
    where: NamedDependency[RecordFilter],
    form: Form = ExportFormat.OTLP_JSON,
) -> Stream:
    """Hand out all records of the tenant that match, oldest first; the export itself is recorded before.

    An answer that breaks off, without the end that HTTP gives it, is incomplete.
    """
    parts, exchange = parts_of(request.scope), exchange_of(request.scope)
    export = AuditExport(parts.services, context_of(request.scope), exchange.span, parts.reads)
    media_type, ending = FORMS[form]
    return Stream(
        await export.begin(where, form),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="audit.{ending}"'},
    )
