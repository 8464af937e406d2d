"""The forms that stand in many places: what OpenAPI says of an id, a time, a hash or a header, with examples."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

import msgspec
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, PathParameter
from msgspec import Meta

from service.jobs.model import Limits
from service.ports import Receipt

UUID: Final = {"format": "uuid"}
SHA256: Final = {"pattern": "^[0-9a-f]{64}$"}
TRACE_ID: Final = {"pattern": "^[0-9a-f]{32}$"}
SPAN_ID: Final = {"pattern": "^[0-9a-f]{16}$"}
REQUEST_ID: Final = {"pattern": "^[A-Za-z0-9._-]{1,128}$"}


def about(description: str, *examples: Any, **schema: Any) -> Meta:
    """Describe a member for OpenAPI: what it is, an example of it, and more keywords of its JSON Schema."""
    return Meta(description=description, examples=list(examples) or None, extra_json_schema=schema or None)


def example_of(kind: type, absent: Collection[str] = ()) -> Any:
    """Return an example of a type in the form of its JSON, without the members that are named in `absent`.

    Raises:
        KeyError: a member has no example.
    """
    (schema,), schemas = msgspec.json.schema_components([kind], ref_template="{name}")
    return _example(schema, schemas, absent)


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], absent: Collection[str]) -> Any:
    match schema:
        case {"examples": [first, *_]}:
            return first
        case {"$ref": name}:
            return _example(schemas[name], schemas, absent)
        case {"anyOf": [first, *_]}:
            return _example(first, schemas, absent)
        case {"items": item}:
            return [_example(item, schemas, absent)]
        case {"properties": members}:
            return {name: _example(each, schemas, absent) for name, each in members.items() if name not in absent}
        case {"default": default}:
            return default
        case _:
            return schema["enum"][0]


# The document shows them wherever such a member stands, so that what it shows of one job belongs together.
JOB_ID: Final = "019b76da-a8b3-7a41-9c52-5d9c40d3a1f0"
JOB: Final = f"/v1/jobs/{JOB_ID}"
KEY_ID: Final = "019b76daa8b37a419c525d9c40d3a1f0"
LIMITS: Final = Limits(
    memory_bytes=67_108_864,
    cpu_seconds=30,
    output_bytes=65_536,
    processes=512,
    open_files=1024,
    folder_bytes=1_073_741_824,
    folder_files=50_000,
)
PLAN_SHA256: Final = "022518fa471f7175e69e1f02691dea14308459dca640ea40062b1a55f61fe85a"
RECEIPT: Final = Receipt(
    record_id="019b76da-a8b4-7f10-8a3e-77f0b6c1d2e3",
    stream_id="5f0c1c52-52d0-4b8e-9a55-0f7c4f6f2a11",
    sequence_number=42,
    record_hash="6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
)

UuidField = Annotated[str, Meta(extra_json_schema=UUID)]
JobIdField = Annotated[UuidField, Meta(examples=[JOB_ID])]
RecordId = Annotated[UuidField, Meta(examples=[RECEIPT.record_id])]
StreamId = Annotated[UuidField, Meta(examples=[RECEIPT.stream_id])]
Sha256Field = Annotated[
    str, Meta(extra_json_schema=SHA256, examples=["b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"])
]
RecordHash = Annotated[str, Meta(extra_json_schema=SHA256, examples=[RECEIPT.record_hash])]
TraceId = Annotated[str, about("The trace in which it took place.", "0af7651916cd43dd8448eb211c80319c", **TRACE_ID)]
SpanId = Annotated[str, about("The span in which it took place.", "b7ad6b7169203331", **SPAN_ID)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-02T03:04:05.678901234Z"])]
"""RFC 3339, UTC, with nine digits of the second."""
ActorField = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256}, examples=["anna"])]
Tenant = Annotated[str, about("The tenant that it belongs to.", "default", minLength=1)]
Links = dict[str, Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]]
NextCursorField = Annotated[str | None, about("The `cursor` of the next page; null on the last page.", "WzQxXQ")]

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
        description="The name of the artifact as in the listing; its slashes may be percent-encoded.",
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


def text_of(description: str, **schema: Any) -> dict[str, Any]:
    """Describe a header whose value is a text."""
    return {"description": description, "schema": {"type": "string", **schema}}


# Of answers.
HEADERS: Final[Mapping[str, dict[str, Any]]] = {
    "X-Request-Id": text_of("The id of the request, as in its records.", **REQUEST_ID),
    "traceresponse": text_of(
        "The span of the request (W3C Trace Context, level 2).", pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
    ),
    "ETag": text_of("The version of the job; of an artifact, the SHA-256 of its bytes.", pattern='^"[0-9a-f]+"$'),
    "Location": text_of("The path of the job that was created; comes with 201.", format="uri-reference"),
    "Content-Disposition": text_of("The name under which the bytes are saved."),
    "Repr-Digest": text_of("The SHA-256 of the bytes (RFC 9530).", pattern="^sha-256=:[A-Za-z0-9+/]{43}=:$"),
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": text_of("How to authenticate (RFC 6750)."),
}
EVERYWHERE: Final = ("X-Request-Id", "traceresponse")
"""The headers of all answers of routes that need a credential, and of all problems."""


def sends(*names: str) -> list[ResponseHeader]:
    """Return the headers of these names in `HEADERS` as Litestar documents them at a route or router."""
    return [ResponseHeader(name=name, documentation_only=True) for name in names]
