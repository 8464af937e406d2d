"""The OpenAPI document: what Litestar knows of the routes, the exact types of msgspec, and what neither can know."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.types import ControllerRouterHandler

from service.api.audit import RecordsAnswer
from service.api.examples import EXAMPLES, problem_example
from service.api.export import FORMS
from service.api.health import METRICS_MEDIA_TYPE, Health
from service.api.ledger import CheckpointsAnswer, ProofAnswer, StreamsAnswer
from service.api.me import MeAnswer
from service.api.messages import (
    ArtifactsAnswer,
    ConfirmJob,
    CreateJob,
    InputAnswer,
    JobsAnswer,
    NoMembers,
    RunsAnswer,
)
from service.api.methods import get
from service.api.problems import MEDIA_TYPE as PROBLEM
from service.api.problems import Problem, status_of
from service.api.requests import ApiRequest
from service.api.templates import TemplatesAnswer
from service.errors import (
    ForbiddenError,
    InvalidRequestError,
    LedgerUnavailableError,
    NotFoundError,
    PayloadTooLargeError,
    PreconditionFailedError,
    RefusedError,
    ThrottledError,
    TransitionRefusedError,
    TryLaterError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from service.jobs.model import Status
from service.operations.exports import ExportFormat

DOCUMENT_MEDIA_TYPE: Final = "application/vnd.oai.openapi+json;version=3.1"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"

_TYPES: Final = (
    CreateJob,
    ConfirmJob,
    NoMembers,
    JobsAnswer,
    RunsAnswer,
    TemplatesAnswer,
    MeAnswer,
    InputAnswer,
    ArtifactsAnswer,
    RecordsAnswer,
    StreamsAnswer,
    CheckpointsAnswer,
    ProofAnswer,
    ExportFormat,
    Health,
    Problem,
    Status,
)
_DESCRIPTION: Final = (
    "Job operations whose audit trail can be trusted and followed. Every change, and every refused attempt of one, "
    "leaves a committed audit record; answers to changes carry its receipt, problems its id. See docs/api.md."
)
_BEARER: Final = SecurityScheme(
    type="http",
    scheme="bearer",
    description="An API key (`atk_…`), or a JSON Web Token of the configured issuer.",
)
_TAGS: Final = {
    "/v1/me": "caller",
    "/v1/templates": "jobs",
    "/v1/jobs": "jobs",
    "/v1/audit": "audit",
    "/health": "operation",
    "/metrics": "operation",
}
# One of each status, as an example of all that have it.
_PROBLEMS: Final[Sequence[RefusedError | TryLaterError]] = (
    InvalidRequestError("the body does not fit: Object contains unknown field `priority`"),
    UnauthenticatedError("this needs an API key or token: Authorization: Bearer …"),
    ForbiddenError("this needs the role approver"),
    NotFoundError("there is no such job"),
    TransitionRefusedError("only a draft can be confirmed; the job is created"),
    PreconditionFailedError("If-Match names version 1; the job is at version 2"),
    PayloadTooLargeError("the body exceeds the limit of this path"),
    UnsupportedMediaTypeError("the body must be application/json"),
    ThrottledError("more than 60 of your requests were refused within a minute"),
    LedgerUnavailableError("the ledger cannot be used"),
)
_OK: Final = {"2": "Done", "5": "Not ready"}


@get(["/schema", "/schema/openapi.json"], include_in_schema=False)
async def openapi_document(request: ApiRequest) -> Response[bytes]:
    """Return the OpenAPI document of this API."""
    described: Described = request.app.state["described"]
    return Response(await asyncio.to_thread(described), media_type=DOCUMENT_MEDIA_TYPE)


class Described:
    """Makes the document when it is first asked for, once; from any thread."""

    def __init__(self, routes: Sequence[ControllerRouterHandler], version: str) -> None:
        self._make = cache(lambda: msgspec.json.encode(document(routes, version)))

    def __call__(self) -> bytes:
        """Return the document as JSON."""
        return self._make()


def document(routes: Sequence[ControllerRouterHandler], version: str) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    config = OpenAPIConfig(
        title="auditrace",
        # Litestar would serve pages of its own here; this application only describes and never serves.
        path="/described",
        version=version,
        description=_DESCRIPTION,
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, method, _: f"{method.lower()}:{handler.handler_name}",
        components=Components(security_schemes={"bearer": _BEARER}),
        tags=[Tag(name) for name in dict.fromkeys(_TAGS.values())],
    )
    described_app = Litestar(routes, request_class=ApiRequest, openapi_config=config, logging_config=None)
    described = described_app.openapi_schema.to_schema()
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    described["components"]["schemas"] = schemas
    described["components"]["responses"] = {str(status_of(error)[0]): _problem(error) for error in _PROBLEMS}
    for path, item in described["paths"].items():
        # HEAD answers what GET does, and needs no description of its own.
        item.pop("head", None)
        for method, operation in item.items():
            _complete(operation, method, path)
    return described


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add to an operation what Litestar cannot see: bodies without a type, examples, problems, credentials."""
    name = operation["operationId"] = operation["operationId"].partition(":")[2]
    operation["summary"] = name.replace("_", " ").capitalize()
    operation["tags"] = [next(tag for start, tag in _TAGS.items() if path.startswith(start))]
    example = EXAMPLES[name]
    parameters = operation.setdefault("parameters", [])
    if method == "post":
        parameters.append(_header("Idempotency-Key", "Honoured for 24 hours, per actor and route.", 255))
    parameters.append(_header("X-Request-Id", "Kept when it is 1 to 128 of `[A-Za-z0-9._-]`, else replaced.", 128))
    if name == "put_input":
        operation["requestBody"] = {"required": True, "content": {BYTES: {"schema": {}}}}
    elif example.body is not None:
        operation["requestBody"] = {
            "required": not isinstance(example.body, NoMembers),
            "content": {JSON: _content(example.body)},
        }
    is_guarded = path.startswith("/v1/")
    operation["security"] = [{"bearer": []}] if is_guarded else []
    answers = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
    if name == "create_job":
        answers["200"] = {"description": "The same key and body came before: this is the job it made"}
    if name == "ready":
        answers["503"] = {}
    for status, answer in answers.items():
        answer.setdefault("description", _OK[status[0]])
        answer["headers"] = {"X-Request-Id": {"schema": {"type": "string"}}}
        answer["content"] = _answered(name)
    operation["responses"] = answers
    if is_guarded:
        refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _refusals(operation, method)}
        operation["responses"] = {**answers, **refused}


def _answered(name: str) -> dict[str, Any]:
    answer = EXAMPLES[name].answer
    if answer is not None:
        return {JSON: _content(answer)}
    media_types = {"metrics": [METRICS_MEDIA_TYPE], "export_records": sorted({form[0] for form in FORMS.values()})}
    return {media_type: {"schema": {}} for media_type in media_types.get(name, [BYTES])}


def _content(value: msgspec.Struct) -> dict[str, Any]:
    return {
        "schema": {"$ref": f"#/components/schemas/{type(value).__name__}"},
        "examples": {"example": {"value": msgspec.to_builtins(value)}},
    }


def _refusals(operation: Mapping[str, Any], method: str) -> Iterator[int]:
    """Yield the statuses with which a guarded operation can be refused, in order."""
    yield from (400, 401, 403)
    if any(parameter["in"] == "path" for parameter in operation["parameters"]):
        yield 404
    if method in {"post", "put"}:
        yield 409
    if any(parameter["name"] == "If-Match" for parameter in operation["parameters"]):
        yield 412
    if "requestBody" in operation:
        yield 413
        if JSON in operation["requestBody"]["content"]:
            yield 415
    yield from (429, 503)


def _header(name: str, description: str, max_length: int) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": max_length}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _problem(error: RefusedError | TryLaterError) -> dict[str, Any]:
    status, title, error_type = status_of(error)
    is_recorded = isinstance(error, RefusedError)
    example = problem_example(status, title, error_type, error.detail, is_recorded=is_recorded)
    schema = {"$ref": "#/components/schemas/Problem"}
    answer: dict[str, Any] = {
        "description": title,
        "content": {PROBLEM: {"schema": schema, "examples": {"example": {"value": example}}}},
    }
    if isinstance(error, ThrottledError | TryLaterError):
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return answer
