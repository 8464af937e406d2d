"""Each HTTP request has one span that follows the conventions, is current for the application, and always ends."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from service.errors import ShuttingDownError
from telemetry import names
from telemetry.instruments import Instruments
from telemetry.server import OTHER, ServerSpans
from tests.support.api import ApiUnderTest
from tests.support.sqlite_stores import SqliteStore

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
UNSAMPLED = f"00-{CALLER_TRACE}-{CALLER_SPAN}-00"

Raw = Callable[[Any, Any, Any], Awaitable[None]]


class Served:
    """An application behind the middleware, with the spans and metrics it left; the clock ticks when read."""

    def __init__(self, app: Raw) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        instruments = Instruments(MeterProvider([self._reader], shutdown_on_exit=False).get_meter("test"))
        ticks = itertools.count(100)
        self.call = ServerSpans(app, provider.get_tracer("test"), instruments, lambda: float(next(ticks)))

    def ended(self) -> Sequence[ReadableSpan]:
        """Return all spans that ended."""
        return self._exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        """Return the one span that ended; anything but one fails the test."""
        (span,) = self.ended()
        return span

    def durations(self) -> Mapping[frozenset[tuple[str, Any]], float]:
        """Return the sum of request durations by attributes."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            frozenset((point.attributes or {}).items()): point.sum
            for group in data.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
            if isinstance(metric.data, Histogram)
            for point in metric.data.data_points
        }

    def request(self, method: str, path: str, *headers: tuple[str, str]) -> httpx.Response:
        """Send one request and return its answer."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.call, client=("192.0.2.7", 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://audit.test:8080") as client:
                return await client.request(method, path, headers=list(headers))

        return asyncio.run(send())


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200 and say nothing more."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def api(store: SqliteStore, tmp_path: Path) -> Iterator[ApiUnderTest]:
    """The real application over a real ledger."""
    under_test = ApiUnderTest(store, tmp_path)
    yield under_test
    under_test.close()


class ServedApi:
    """The real application behind the middleware, called on its own event loop."""

    def __init__(self, api: ApiUnderTest) -> None:
        self.served = Served(api.app)
        self._api = api
        self._key = api.key("anna", "admin").key

    def request(self, method: str, path: str, *, json: Any = None, **headers: str) -> httpx.Response:
        """Send one request with a good credential, unless another is given."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.served.call, client=("192.0.2.7", 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://audit.test") as client:
                given = {"authorization": f"Bearer {self._key}", **headers}
                return await client.request(method, path, json=json, headers=given)

        return self._api.wait(send())


@pytest.fixture
def served_api(api: ApiUnderTest) -> ServedApi:
    """The real application behind the middleware."""
    return ServedApi(api)


def test_the_span_follows_the_http_conventions() -> None:
    """A plain request gives a server span with the attributes of the conventions, and the query is not among them."""
    served = Served(answering)
    answer = served.request("GET", "/a%20b?token=secret", ("user-agent", "curl/8"))
    span = served.span()
    assert answer.headers["x-own"] == "1"
    assert (span.name, span.kind, span.status.status_code) == ("GET", SpanKind.SERVER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        names.HTTP_REQUEST_METHOD: "GET",
        names.URL_PATH: "/a%20b",
        names.URL_SCHEME: "http",
        names.NETWORK_PROTOCOL_VERSION: "1.1",
        names.SERVER_ADDRESS: "audit.test",
        names.SERVER_PORT: 8080,
        names.CLIENT_ADDRESS: "192.0.2.7",
        names.USER_AGENT_ORIGINAL: "curl/8",
        names.HTTP_RESPONSE_STATUS_CODE: 200,
    }


def test_the_callers_trace_goes_on_and_stays_sampled() -> None:
    """The span is the child of the caller's, keeps its tracestate, and is sampled although the caller is not."""
    served = Served(answering)
    answer = served.request("GET", "/", ("traceparent", UNSAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2"))
    context = served.span().get_span_context()
    parent = served.span().parent
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.is_remote) == (CALLER_TRACE, CALLER_SPAN, True)
    assert context.trace_state.to_header() == "a=1,b=2"
    assert context.trace_flags.sampled
    assert answer.headers["traceresponse"] == f"00-{CALLER_TRACE}-{context.span_id:016x}-{context.trace_flags:02x}"


@pytest.mark.parametrize("given", [[], ["00-zz"], [UNSAMPLED, UNSAMPLED], [UNSAMPLED + "-x"]])
def test_without_a_valid_traceparent_a_trace_begins(given: list[str]) -> None:
    """None, a broken one or two of them: the request gets a trace of its own, and the answer says which."""
    served = Served(answering)
    answer = served.request("GET", "/", *[("traceparent", text) for text in given])
    context = served.span().get_span_context()
    assert served.span().parent is None
    assert f"{context.trace_id:032x}" != CALLER_TRACE
    assert answer.headers["traceresponse"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


def test_the_span_is_current_for_the_application_and_only_there() -> None:
    """What the application starts is a child of the request's span; after the answer nothing is current."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{get_current_span().get_span_context().span_id:016x}")
        await answering(scope, receive, send)

    served = Served(app)
    served.request("GET", "/")
    assert seen == [f"{served.span().get_span_context().span_id:016x}"]
    assert not get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("audit.example", "audit.example", None),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ("evil\\host", "127.0.0.1", 8080),
        ("a b", "127.0.0.1", 8080),
        ("x:99999999", "127.0.0.1", 8080),
        ("", "127.0.0.1", 8080),
    ],
)
def test_the_server_is_named_as_the_client_named_it(host: str, address: str, port: int | None) -> None:
    """The Host header names the server; one that is no host is ignored for the address that was listened on."""
    served = Served(answering)
    asyncio.run(served.call(scope_of(headers=[(b"host", host.encode())]), receiving, dropping))
    attributes = served.span().attributes or {}
    assert (attributes.get(names.SERVER_ADDRESS), attributes.get(names.SERVER_PORT)) == (address, port)


def test_an_unknown_method_does_not_name_the_span() -> None:
    """A made-up method becomes `_OTHER`, so that nobody can make names and series at will."""
    served = Served(answering)
    served.request("BREW", "/")
    attributes = served.span().attributes or {}
    assert served.span().name == "HTTP"
    assert attributes[names.HTTP_REQUEST_METHOD] == OTHER
    assert attributes[names.HTTP_REQUEST_METHOD_ORIGINAL] == "BREW"
    assert [dict(key)[names.HTTP_REQUEST_METHOD] for key in served.durations()] == [OTHER]


def test_the_duration_is_recorded_once_per_request() -> None:
    """The metric has the time from arrival to the end of the answer, by method, scheme and status."""
    served = Served(answering)
    served.request("GET", "/")
    served.request("GET", "/")
    assert served.durations() == {
        frozenset(
            {
                (names.HTTP_REQUEST_METHOD, "GET"),
                (names.URL_SCHEME, "http"),
                (names.HTTP_RESPONSE_STATUS_CODE, 200),
            }
        ): 2.0
    }


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_probes_and_scrapes_leave_no_span(path: str) -> None:
    """What machines ask every few seconds is neither traced nor measured; a POST there is, and a credential is."""
    served = Served(answering)
    answer = served.request("GET", path, ("traceparent", UNSAMPLED))
    assert served.ended() == ()
    assert served.durations() == {}
    assert "traceresponse" not in answer.headers
    served.request("POST", path)
    assert len(served.ended()) == 1
    served.request("GET", path, ("Authorization", "Bearer x"))
    assert len(served.ended()) == 2


def test_other_connections_pass_untouched() -> None:
    """Lifespan events reach the application as they are."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    served = Served(app)
    scope = {"type": "lifespan"}
    asyncio.run(served.call(scope, receiving, dropping))
    assert seen == [scope]
    assert served.ended() == ()


def scope_of(**more: Any) -> dict[str, Any]:
    """Return the scope of a request."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [],
        "server": ("127.0.0.1", 8080),
        "client": None,
    }
    return {**scope, **more}


async def receiving() -> Any:
    """Say that the client has gone."""
    return {"type": "http.disconnect"}


async def dropping(message: Any) -> None:
    """Send nowhere."""


async def broken_pipe(message: Any) -> None:
    """Find that the client has gone."""
    raise OSError("broken pipe")


def test_an_application_that_breaks_ends_its_span_with_the_error() -> None:
    """An exception is passed on, and the span says ERROR, which exception, and that there was no answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("no")

    served = Served(app)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(served.call(scope_of(), receiving, dropping))
    span = served.span()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[names.ERROR_TYPE] == "ZeroDivisionError"
    assert names.HTTP_RESPONSE_STATUS_CODE not in (span.attributes or {})
    assert [event.name for event in span.events] == ["exception"]
    assert [dict(key)[names.ERROR_TYPE] for key in served.durations()] == ["ZeroDivisionError"]


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (499, False), (500, True), (503, True)])
def test_only_the_service_s_own_failures_are_errors(status: int, is_error: bool) -> None:
    """A 5xx makes the span an ERROR with its status as type; a 4xx is the client's doing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body"})

    served = Served(app)
    answer = served.request("GET", "/")
    span = served.span()
    assert "traceresponse" in answer.headers
    assert span.status.status_code is (StatusCode.ERROR if is_error else StatusCode.UNSET)
    assert (span.attributes or {}).get(names.ERROR_TYPE) == (str(status) if is_error else None)


def test_the_span_of_server_sent_events_ends_with_the_head_of_the_answer() -> None:
    """Their end may be hours away: the span and its duration say how long the head took, once, whatever comes later."""
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = (b"Content-Type", b"text/event-stream; charset=utf-8")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        ended.append(len(served.ended()))
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        raise ZeroDivisionError("no")

    served = Served(app)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(served.call(scope_of(), receiving, dropping))
    assert ended == [1]
    span = served.span()
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})[names.HTTP_RESPONSE_STATUS_CODE] == 200
    assert list(served.durations().values()) == [1.0]


@pytest.mark.parametrize("answers_before", [False, True])
def test_a_client_that_hangs_up_leaves_no_span_open(answers_before: bool) -> None:
    """Cancelled before or within its answer, the request's span ends, with the status that was sent, if one was."""
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if answers_before:
            await send({"type": "http.response.start", "status": 200})
        started.set()
        await asyncio.Event().wait()

    async def hang_up() -> None:
        request = asyncio.create_task(served.call(scope_of(), receiving, dropping))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    served = Served(app)
    asyncio.run(hang_up())
    attributes = served.span().attributes or {}
    assert attributes.get(names.HTTP_RESPONSE_STATUS_CODE) == (200 if answers_before else None)
    assert len(served.durations()) == 1


def test_an_application_that_cannot_send_ends_its_span() -> None:
    """A connection that breaks under the answer ends the span, and the error reaches the server."""
    served = Served(answering)
    with pytest.raises(OSError, match="broken pipe"):
        asyncio.run(served.call(scope_of(), receiving, broken_pipe))
    assert (served.span().attributes or {})[names.ERROR_TYPE] == "OSError"


def test_long_headers_and_paths_are_cut() -> None:
    """Nobody can fill a span with a header."""
    served = Served(answering)
    served.request("GET", "/" + "p" * 5000, ("user-agent", "u" * 5000))
    attributes = served.span().attributes or {}
    assert len(str(attributes[names.URL_PATH])) == len(str(attributes[names.USER_AGENT_ORIGINAL])) == 1024


def test_routes_are_named_by_their_template(served_api: ServedApi) -> None:
    """Method and path template name the span, without any id; `http.route` is the template alone."""
    job = served_api.request("POST", "/v1/jobs", json={"template": "greet", "parameters": {"name": "x"}}).json()
    served_api.request("GET", f"/v1/jobs/{job['id']}")
    created, read = served_api.served.ended()
    assert (created.name, (created.attributes or {})[names.HTTP_ROUTE]) == ("POST /v1/jobs", "/v1/jobs")
    assert (read.name, (read.attributes or {})[names.HTTP_ROUTE]) == ("GET /v1/jobs/{job_id}", "/v1/jobs/{job_id}")
    routes = {dict(key)[names.HTTP_ROUTE] for key in served_api.served.durations()}
    assert routes == {"/v1/jobs", "/v1/jobs/{job_id}"}


def test_span_and_record_name_each_other(served_api: ServedApi, api: ApiUnderTest) -> None:
    """The record carries the span's ids, the span the record's id: the way there and the way back."""
    answer = served_api.request(
        "POST", "/v1/jobs", json={"template": "greet", "parameters": {"name": "x"}}, traceparent=UNSAMPLED
    )
    span = served_api.served.span()
    context = span.get_span_context()
    record = api.record(event_name=names.EVENT_JOB_CREATE)
    assert (record.body["trace_id"], record.body["span_id"]) == (CALLER_TRACE, f"{context.span_id:016x}")
    assert record.body["trace_flags"] & 1
    assert (span.attributes or {})[names.AUDIT_RECORD_ID] == (answer.json()["audit"]["record_id"],)
    assert (span.attributes or {})[names.AUDIT_RECORDED] is True
    assert (span.attributes or {})[names.AUDIT_TARGET_ID] == answer.json()["id"]


@pytest.mark.parametrize(
    ("method", "path", "credential", "status", "route"),
    [
        ("GET", "/nowhere", None, 404, None),
        ("GET", "/v1/jobs/no-such-job", None, 404, "/v1/jobs/{job_id}"),
        ("POST", "/v1/jobs", None, 400, "/v1/jobs"),
        ("GET", "/v1/jobs", "Bearer wrong", 401, "/v1/jobs"),
    ],
)
def test_refusals_name_their_trace(
    served_api: ServedApi, method: str, path: str, credential: str | None, status: int, route: str | None
) -> None:
    """Also when routing, the credential or the request is refused, problem, header and span name the same trace."""
    more = {"authorization": credential} if credential else {}
    answer = served_api.request(method, path, traceparent=UNSAMPLED, **more)
    span = served_api.served.span()
    assert answer.status_code == status
    assert answer.json()["trace_id"] == CALLER_TRACE
    assert answer.headers["traceresponse"].split("-")[1] == CALLER_TRACE
    assert (span.attributes or {}).get(names.HTTP_ROUTE) == route
    assert span.status.status_code is StatusCode.UNSET


def test_a_failure_of_the_service_says_which(served_api: ServedApi, api: ApiUnderTest) -> None:
    """An answer with 503 makes span and metric name the class of the error, not only the number."""
    api.lane.close()
    answer = served_api.request("POST", "/v1/jobs", json={"template": "greet", "parameters": {"name": "x"}})
    span = served_api.served.span()
    assert answer.status_code == 503
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[names.ERROR_TYPE] == answer.json()["error_type"] == ShuttingDownError.error_type
    assert [dict(key)[names.ERROR_TYPE] for key in served_api.served.durations()] == [ShuttingDownError.error_type]
