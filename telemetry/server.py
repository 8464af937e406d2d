"""An ASGI middleware that records a span and the duration of each HTTP request.

Source: OpenTelemetry semantic conventions, HTTP server spans and metrics; W3C Trace Context, also section 4 of its
level 2 (`traceresponse`). The reason for our own middleware: docs/adr/0006.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.exceptions import attributes_of_exception
from telemetry.instruments import Instruments
from telemetry.propagation import remote_context, traceparent

AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Frameworks have their own types of scope and messages.
App = Callable[[Any, Any, Any], Awaitable[None]]

METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
OTHER: Final = "_OTHER"
UNTRACED: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Machines ask these paths every few seconds, and that leaves no record. Other methods and credentials are traced."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.~-]{1,255})(?::([0-9]{1,5}))?", re.ASCII)
_MAX_TEXT: Final = 1024


class ServerSpans:
    """Serves each request in a server span. It continues the caller's trace and is current for the application.

    Every answer names the span in `traceresponse`. The span ends with the answer, also when the client has gone or the
    application fails. Server-sent events have no planned end: their span and its duration end with the head of the
    answer, so that the trace is complete at once. The sampler alone decides whether the span is sampled.
    """

    def __init__(self, app: App, tracer: Tracer, instruments: Instruments, monotonic: Callable[[], float]) -> None:
        self._app = app
        self._tracer = tracer
        self._instruments = instruments
        self._monotonic = monotonic

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests get a span."""
        if scope["type"] != "http" or _is_untraced(scope):
            await self._app(scope, receive, send)
            return
        await _Exchange(scope, self._tracer, self._instruments, self._monotonic).run(self._app, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, scope: AsgiScope, tracer: Tracer, instruments: Instruments, monotonic: Callable[[], float]
    ) -> None:
        self._scope = scope
        self._instruments = instruments
        self._monotonic = monotonic
        self._started = monotonic()
        self._method = scope["method"] if scope["method"] in METHODS else OTHER
        self._status: int | None = None
        self._has_ended = False
        headers = _headers(scope)
        self._span = tracer.start_span(
            self._name(None),
            context=_parent(headers),
            kind=SpanKind.SERVER,
            attributes=_attributes(scope, headers, self._method),
        )

    async def run(self, app: App, receive: Receive, send: Send) -> None:
        """Let the application answer within the span, and end the span in every case."""

        async def send_within(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                response = b"traceresponse", _traceresponse(self._span)
                message = {**message, "headers": [*message.get("headers", ()), response]}
            await send(message)
            if message["type"] == "http.response.start" and _is_endless(message):
                self._end(None)

        failure: BaseException | None = None
        try:
            with use_span(self._span, record_exception=False, set_status_on_exception=False):
                await app(self._scope, receive, send_within)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        state = self._scope.get("state", {})
        for name in (names.CLIENT_ADDRESS, names.NETWORK_PEER_ADDRESS):
            # An application that knows the client behind a proxy puts it into the state.
            if isinstance(state.get(name), str):
                self._span.set_attribute(name, state[name])
        # The route is known only now, because the application finds it.
        route: str | None = self._scope.get("path_template") or None
        error_type = self._error_type(failure)
        if route is not None:
            self._span.update_name(self._name(route))
            self._span.set_attribute(names.HTTP_ROUTE, route)
        if self._status is not None:
            self._span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, self._status)
        if isinstance(failure, Exception):
            self._span.record_exception(failure, attributes_of_exception(failure))
        if error_type is not None:
            self._span.set_attribute(names.ERROR_TYPE, error_type)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        # The span is current once more, so that the measurement gets the trace as its exemplar.
        with use_span(self._span):
            self._instruments.request_ended(
                self._monotonic() - self._started,
                method=self._method,
                scheme=self._scope["scheme"],
                route=route,
                status=self._status,
                error_type=error_type,
            )

    def _error_type(self, failure: BaseException | None) -> str | None:
        if failure is not None:
            return type(failure).__qualname__
        if self._status is not None and self._status >= 500:
            # An application that knows a more exact type than the status puts it into the state.
            return str(self._scope.get("state", {}).get(names.ERROR_TYPE, self._status))
        return None

    def _name(self, route: str | None) -> str:
        method = "HTTP" if self._method == OTHER else self._method
        return method if route is None else f"{method} {route}"


def _is_untraced(scope: AsgiScope) -> bool:
    if scope["path"] not in UNTRACED or scope["method"] not in {"GET", "HEAD"}:
        return False
    # A request with an invalid credential leaves a record, and every record is made in a span.
    return all(name.lower() != b"authorization" for name, _ in scope["headers"])


def _is_endless(head: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.partition(b";")[0].strip() == b"text/event-stream"
        for name, value in head["headers"]
    )


def _headers(scope: AsgiScope) -> Mapping[str, list[str]]:
    headers: dict[str, list[str]] = {}
    pairs: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _parent(headers: Mapping[str, list[str]]) -> Context:
    parents = headers.get("traceparent", [])
    # Section 3.2: two traceparent headers are not valid.
    if len(parents) != 1:
        return Context()
    return remote_context(parents[0].strip(" \t"), ",".join(headers.get("tracestate", [])))


def _attributes(scope: AsgiScope, headers: Mapping[str, list[str]], method: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        names.HTTP_REQUEST_METHOD: method,
        names.URL_PATH: _path(scope)[:_MAX_TEXT],
        names.URL_SCHEME: scope["scheme"],
        names.NETWORK_PROTOCOL_VERSION: scope["http_version"],
    }
    if method == OTHER:
        attributes[names.HTTP_REQUEST_METHOD_ORIGINAL] = scope["method"][:_MAX_TEXT]
    address, port = _server(scope, headers)
    if address is not None:
        attributes[names.SERVER_ADDRESS] = address
    if port is not None:
        attributes[names.SERVER_PORT] = port
    client = scope.get("client")
    if client:
        attributes[names.CLIENT_ADDRESS] = client[0]
    agents = headers.get("user-agent")
    if agents:
        attributes[names.USER_AGENT_ORIGINAL] = agents[0][:_MAX_TEXT]
    return attributes


def _path(scope: AsgiScope) -> str:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")


def _server(scope: AsgiScope, headers: Mapping[str, list[str]]) -> tuple[str | None, int | None]:
    match = _HOST.fullmatch(headers.get("host", [""])[0])
    if match is not None:
        host, port = match.groups()
        return host.strip("[]"), int(port) if port is not None else None
    server: tuple[str, int | None] | None = scope.get("server")
    return server or (None, None)


def _traceresponse(span: Span) -> bytes:
    context = span.get_span_context()
    return traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags).encode()
