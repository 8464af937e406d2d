"""Makes the OpenAPI document of what the handlers declare, and completes it by rules that hold for all routes.

The rules add what Litestar cannot express: the exact types of msgspec, examples made of those of the members, bodies
that handlers read themselves, and headers and problems as components.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.response import Stream
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from service.api.bodies import OPTIONAL_BODIES
from service.api.fields import EVERYWHERE, HEADERS, REQUEST_ID, example_of, text_of
from service.api.problems import MEDIA_TYPE as PROBLEM
from service.api.problems import Problem
from service.api.request import ApiRequest
from service.api.routing import BODY, BYTES, JSON, MEDIA_TYPES, STREAM, get

DOCUMENT_MEDIA_TYPE: Final = "application/vnd.oai.openapi+json;version=3.1"

_DESCRIPTION: Final = (
    "Job operations whose audit trail can be trusted and followed. Every change, and every refused attempt of one, "
    "leaves a committed audit record; answers to changes, and problems, carry its receipt. See docs/api.md."
)
_BEARER: Final = SecurityScheme(
    type="http",
    scheme="bearer",
    description="An API key (`atk_…`), or a JSON Web Token of the configured issuer.",
)
_BINARY: Final = {"type": "string", "format": "binary"}
_OF_PROBLEMS: Final = {"401": ["WWW-Authenticate"], "429": ["Retry-After"], "503": ["Retry-After"]}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **text_of(description, **schema)}


_OF_EVERY_REQUEST: Final = (
    # Other values are not refused, so their forms are no constraints.
    _header("X-Request-Id", f"Kept when it matches `{REQUEST_ID['pattern']}`, else replaced."),
    _header("traceparent", "Continues the trace of the caller (W3C Trace Context); ignored when it is malformed."),
)
_OF_POST: Final = _header(
    "Idempotency-Key",
    "The same key and request again is answered, but not done again: for 24 hours, per actor and route.",
    pattern="^[ -~]{1,255}$",
    minLength=1,
    maxLength=255,
)


@get(["/schema", "/schema/openapi.json"], include_in_schema=False)
async def openapi_document(request: ApiRequest) -> Stream:
    """Return the OpenAPI document of this API."""
    text = await asyncio.to_thread(request.app.state["document"])

    async def pieces() -> AsyncGenerator[bytes]:
        for at in range(0, len(text), 65536):
            yield text[at : at + 65536]

    return Stream(pieces(), media_type=DOCUMENT_MEDIA_TYPE, headers={"Content-Length": str(len(text))})


def document(routes: Sequence[ControllerRouterHandler], version: str) -> bytes:
    """Return the OpenAPI document of these routes as JSON."""
    config = OpenAPIConfig(
        title="auditrace",
        # Litestar would serve pages of its own here; this application only describes and never serves.
        path="/described",
        version=version,
        description=_DESCRIPTION,
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, method, _: f"{method}:{handler.handler_name}",
        components=Components(security_schemes={"bearer": _BEARER}),
        tags=[Tag(name) for name in ("caller", "jobs", "keys", "audit", "operation")],
    )
    app = Litestar(routes, request_class=ApiRequest, openapi_config=config, logging_config=None)
    described = app.openapi_schema.to_schema()
    operations = list(_operations(app, described["paths"]))
    kinds = {kind.__name__: kind for _, _, handler in operations for kind in _types_of(handler)}
    problems: dict[str, Any] = {}
    for operation, method, handler in operations:
        operation["operationId"] = handler.handler_name
        operation["summary"] = handler.handler_name.replace("_", " ").capitalize()
        operation.setdefault("security", [])
        operation.pop("deprecated")
        declared = [_declared(each, described["components"]["schemas"]) for each in operation.get("parameters", ())]
        operation["parameters"] = [*declared, *([_OF_POST] if method == "post" else ()), *_OF_EVERY_REQUEST]
        _describe_body(operation, method, handler)
        _describe_answers(operation, handler, kinds, problems)
    _, schemas = msgspec.json.schema_components([*kinds.values(), Problem], ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    described["components"] |= {"schemas": schemas, "headers": HEADERS, "responses": problems}
    return msgspec.json.encode(described)


def _operations(app: Litestar, paths: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, HTTPRouteHandler]]:
    """Yield each operation with its method and handler; HEAD answers what GET does, and is not described."""
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path_format in paths:
            item = paths[route.path_format]
            item.pop("head", None)
            for method in route.route_handler_map:
                if method.lower() in item:
                    yield item[method.lower()], method.lower(), route.route_handler_map[method][0]


def _types_of(handler: HTTPRouteHandler) -> Iterator[type[msgspec.Struct]]:
    answer = handler.parsed_fn_signature.return_type
    for kind in (handler.opt.get(BODY), answer.annotation, *(inner.annotation for inner in answer.inner_types)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def _declared(raw: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    schema = _cleared(raw["schema"], schemas)
    kept = {name: raw[name] for name in ("name", "in", "required")}
    return {**kept, "description": schema.pop("description"), "schema": schema}


def _cleared(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without references and null: an absent parameter is absent, and never null."""
    cleared: dict[str, Any] = {
        name: int(value) if isinstance(value, float) else value for name, value in schema.items()
    }
    reference = cleared.pop("$ref", None)
    if reference is not None:
        cleared = {**schemas[reference.rpartition("/")[2]], **cleared}
    for keyword in ("oneOf", "allOf"):
        for part in cleared.pop(keyword, ()):
            if part != {"type": "null"}:
                cleared = {**_cleared(part, schemas), **cleared}
    return {name: value for name, value in cleared.items() if value is not None}


def _describe_body(operation: dict[str, Any], method: str, handler: HTTPRouteHandler) -> None:
    """Describe the body: JSON of the type in the options of the route, or the bytes of a PUT."""
    kind: type[msgspec.Struct] | None = handler.opt.get(BODY)
    if kind is not None:
        about, content = _first_line(kind), {JSON: _shown(kind)}
        operation["requestBody"] = {"description": about, "required": kind not in OPTIONAL_BODIES, "content": content}
    elif method == "put":
        content = {BYTES: {"schema": _BINARY}}
        operation["requestBody"] = {"description": "The bytes.", "required": True, "content": content}


def _describe_answers(
    operation: dict[str, Any],
    handler: HTTPRouteHandler,
    kinds: Mapping[str, type[msgspec.Struct]],
    problems: dict[str, Any],
) -> None:
    """Complete what Litestar says of the answers; a problem is moved to `problems` and referred to."""
    answers = operation["responses"]
    success = answers[str(handler.status_code)]
    headers = _references(sorted(success["headers"]))
    for status, answer in answers.items():
        ((media_type, content),) = answer["content"].items()
        if media_type == PROBLEM:
            (example,) = content["examples"].values()
            content["examples"] = {"example": example}
            problems[status] = {**answer, "headers": _references([*EVERYWHERE, *_OF_PROBLEMS.get(status, ())])}
            answers[status] = {"$ref": f"#/components/responses/{status}"}
            continue
        # A handler that answers with a stream when a parameter asks for one states two types.
        first, *_ = content["schema"].get("oneOf", [content["schema"]])
        kind = kinds.get(first.get("$ref", "").rpartition("/")[2])
        if kind is not None:
            content = _shown(kind)
        else:
            content = {"schema": _BINARY if media_type == BYTES else {"type": "string"}}
        if answer is success:
            answer["description"] = handler.response_description or _first_line(kind)
        answer["headers"] = headers
        answer["content"] = dict.fromkeys(handler.opt.get(MEDIA_TYPES, [media_type]), content)
        if STREAM in handler.opt:
            # OpenAPI 3.1 cannot describe the events of a stream; docs/api.md does.
            answer["content"][handler.opt[STREAM]] = {}


def _references(headers: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _first_line(kind: type | None) -> str:
    return ((kind and kind.__doc__) or "").partition("\n")[0]


def _shown(kind: type[msgspec.Struct]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"schema": schema, "examples": {"example": {"value": example_of(kind)}}}
