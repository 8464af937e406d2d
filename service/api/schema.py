"""The OpenAPI document: what Litestar knows of the routes, the exact types of msgspec, and what each route says."""

import asyncio
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from service.api.documented import BYTES, DOCUMENTED, EVERYWHERE, HEADERS, JSON, UNTRACED, Documented
from service.api.examples import EXAMPLES, PROBLEMS, problem_example
from service.api.messages import NoMembers
from service.api.methods import get
from service.api.parameters import parameters_of
from service.api.problems import MEDIA_TYPE as PROBLEM
from service.api.problems import Problem, status_of
from service.api.request import BODY, EVENT, ApiRequest
from service.errors import AuditraceError, ThrottledError, TryLaterError, UnauthenticatedError

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
_TAGS: Final = {
    "/v1/me": "caller",
    "/v1/templates": "jobs",
    "/v1/jobs": "jobs",
    "/v1/audit": "audit",
    "/health": "operation",
    "/metrics": "operation",
}
_BINARY: Final = {"type": "string", "format": "binary"}


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
    handlers = {handler.handler_name: handler for handler in _handlers(described_app)}
    declared = described["components"]["schemas"]
    shown: dict[str, type[msgspec.Struct]] = {}
    for path, item in described["paths"].items():
        # HEAD answers what GET does, and needs no description of its own.
        item.pop("head", None)
        for method, operation in item.items():
            name = operation["operationId"].partition(":")[2]
            operation["parameters"] = parameters_of(operation, declared, method)
            _complete(operation, _Route(handlers[name], path), shown)
    _, schemas = msgspec.json.schema_components([*shown.values(), Problem], ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    described["components"]["schemas"] = schemas
    described["components"]["headers"] = HEADERS
    described["components"]["responses"] = {str(status_of(error)[0]): _problem(error) for error in PROBLEMS}
    return described


class _Route:
    """What a handler says of itself, by its signature and in its options."""

    def __init__(self, handler: HTTPRouteHandler, path: str) -> None:
        self.name, self.path, self.options = handler.handler_name, path, handler.opt
        self.documented: Documented = handler.opt.get(DOCUMENTED, Documented())
        self.body: type[msgspec.Struct] | None = handler.opt.get(BODY)
        answer = handler.parsed_fn_signature.return_type
        kinds: list[Any] = [answer.annotation, *(inner.annotation for inner in answer.inner_types)]
        self.answer: type[msgspec.Struct] | None = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None
        )

    @property
    def is_guarded(self) -> bool:
        return self.path.startswith("/v1/")


def _handlers(app: Litestar) -> Iterator[HTTPRouteHandler]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from route.route_handlers


def _complete(operation: dict[str, Any], route: _Route, shown: dict[str, type[msgspec.Struct]]) -> None:
    """Add to an operation what Litestar cannot see: bodies, answers, headers, examples, problems, credentials."""
    operation["operationId"] = route.name
    operation["summary"] = route.name.replace("_", " ").capitalize()
    operation["tags"] = [next(tag for start, tag in _TAGS.items() if route.path.startswith(start))]
    operation["security"] = [{"bearer": []}] if route.is_guarded else []
    if route.documented.optional_credential:
        operation["security"] = [{}, {"bearer": []}]
    operation.pop("deprecated", None)
    operation.pop("requestBody", None)
    if route.documented.takes is not None:
        content = {route.documented.takes: {"schema": _BINARY}}
        operation["requestBody"] = {"description": "The bytes.", "required": True, "content": content}
    elif route.body is not None:
        about, content = _content(route.body, shown)
        is_needed = route.body is not NoMembers
        operation["requestBody"] = {"description": about, "required": is_needed, "content": {JSON: content}}
    success = next(status for status in operation["responses"] if status.startswith("2"))
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _refusals(operation, route)}
    answer = _answer(route, shown)
    also = {str(status): {**answer, "description": about} for status, about in route.documented.also.items()}
    operation["responses"] = {success: answer, **also, **refused}


def _answer(route: _Route, shown: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    documented = route.documented
    always = EVERYWHERE if route.is_guarded else UNTRACED
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in (*always, *documented.headers)}
    if route.answer is None:
        content = {media_type: {"schema": _schema_of(media_type)} for media_type in documented.media_types}
        return {"description": documented.answer, "headers": headers, "content": content}
    about, shape = _content(route.answer, shown)
    content = dict.fromkeys(documented.media_types, shape)
    return {"description": documented.answer or about, "headers": headers, "content": content}


def _schema_of(media_type: str) -> Mapping[str, Any]:
    return _BINARY if media_type == BYTES else {"type": "string"}


def _content(kind: type[msgspec.Struct], shown: dict[str, type[msgspec.Struct]]) -> tuple[str, dict[str, Any]]:
    """Return what a type says of itself in its first line, and how a body of it is shown."""
    shown[kind.__name__] = kind
    about = (kind.__doc__ or "").partition("\n")[0]
    example = {"value": msgspec.to_builtins(EXAMPLES[kind])}
    return about, {
        "schema": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": {"example": example},
    }


def _refusals(operation: Mapping[str, Any], route: _Route) -> Iterator[int]:
    """Yield the statuses with which an operation can fail, in order."""
    if not route.is_guarded:
        yield from (401, 500) if route.documented.optional_credential else (500,)
        return
    places = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
    yield from (400, 401)
    if not route.documented.any_role:
        yield 403
    if any(place == "path" for place, _ in places):
        yield 404
    if "requestBody" in operation:
        yield 409
        if ("header", "If-Match") in places:
            yield 412
        yield from (413, 415)
    if EVENT in route.options:
        yield 429
    yield from (500, 503)


def _problem(error: AuditraceError) -> dict[str, Any]:
    status, title, _ = status_of(error)
    headers: tuple[str, ...] = EVERYWHERE
    if isinstance(error, ThrottledError | TryLaterError):
        headers = (*headers, "Retry-After")
    if isinstance(error, UnauthenticatedError):
        headers = (*headers, "WWW-Authenticate")
    content = {
        "schema": {"$ref": f"#/components/schemas/{Problem.__name__}"},
        "examples": {"example": {"value": problem_example(error)}},
    }
    return {
        "description": f"{title}: {status}.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {PROBLEM: content},
    }
