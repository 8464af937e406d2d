"""The forms of members and parameters that stand in many places: what OpenAPI says of an id, a time or a hash."""

from typing import Annotated, Final

from litestar.params import HeaderParameter, PathParameter
from msgspec import Meta

UUID: Final = {"format": "uuid"}
SHA256: Final = {"pattern": "^[0-9a-f]{64}$"}
TRACE_ID: Final = {"pattern": "^[0-9a-f]{32}$"}
SPAN_ID: Final = {"pattern": "^[0-9a-f]{16}$"}
REQUEST_ID: Final = {"pattern": "^[A-Za-z0-9._-]{1,128}$"}

Uuid = Annotated[str, Meta(extra_json_schema=UUID)]
Sha256 = Annotated[str, Meta(extra_json_schema=SHA256)]
TraceId = Annotated[str, Meta(description="The trace in which it took place.", extra_json_schema=TRACE_ID)]
SpanId = Annotated[str, Meta(description="The span in which it took place.", extra_json_schema=SPAN_ID)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339, UTC, with nine digits of the second."""
Actor = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]
Tenant = Annotated[str, Meta(description="The tenant that it belongs to.", extra_json_schema={"minLength": 1})]
Links = dict[str, Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]]
Cursor = Annotated[str | None, Meta(description="What `cursor` of the next page is; null on the last page.")]

JobIdPath = Annotated[str, PathParameter(description="The id of the job.", schema_extra=UUID)]
RecordIdPath = Annotated[str, PathParameter(description="The id of the record.", schema_extra=UUID)]
RunPath = Annotated[int, PathParameter(description="The number of the run, from 1.", schema_extra={"minimum": 1})]
InputNamePath = Annotated[
    str,
    PathParameter(
        description="The name of the input: without `..` and without a leading dot.",
        schema_extra={"pattern": "^[A-Za-z0-9._-]{1,128}$"},
    ),
]
ArtifactNamePath = Annotated[
    str,
    PathParameter(
        description="The name of the artifact as the listing has it; its slashes may be percent-encoded.",
        schema_extra={"minLength": 1},
    ),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="The ETag of the version to change; `*` for any.",
        schema_extra={"pattern": r'^(\*|"[1-9][0-9]{0,8}")$'},
    ),
]
