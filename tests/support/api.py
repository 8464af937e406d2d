"""The whole API over a real ledger, in this process: what a client would see, and the records that it leaves."""

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.api.app import create_app
from service.api.auth import ApiKeyAuthenticator, Authenticator, BearerAuthenticator
from service.api.follows import MAX_FOLLOWS, Follows
from service.api.key_uses import ApiKeyUses
from service.api.parts import ApiServices, ApiSettings
from service.api.tenant_limits import TenantLimits
from service.api.throttle import Throttle
from service.api.waiting import MAX_WAITING, POLL_S, JobWaits
from service.bootstrap.templates import load_templates
from service.jobs.model import Job, TenantId
from service.operations.base import Services
from service.operations.budgets import Bounds
from service.operations.covered_keys import CoveredKeys
from service.operations.key_adoption import KeyAdoption
from service.operations.keys import IssuedKey, KeyOperations
from service.operations.rates import RequestLimits
from service.operations.runs import RunOperations
from service.operations.steps import Ended
from service.operations.tallies import Tallies
from service.operations.templates_in_force import TemplatesInForce
from service.ports import CheckpointWriter, RecordFilter, RecordRow, Transaction
from service.records import AuditContext
from service.roles import ADMIN
from telemetry import names
from telemetry.audit.record import Actor
from telemetry.instruments import Instruments
from telemetry.server import ServerSpans
from telemetry.tracing import Tracing
from tests.support.both_stores import Store
from tests.support.ids import ManualClock
from tests.support.ledger_maker import KEY
from tests.support.postgres_clocks import LedgerClock
from tests.support.stores import SECRET

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

TEMPLATES = """
[templates.line-count]
description = "Count the lines of a file"
command = ["wc", "-l", "{path}"]
requires_confirmation = true
distinct_confirmer = true
[templates.line-count.parameters.path]
type = "string"
pattern = "^/[A-Za-z0-9._/-]{1,200}$"

[templates.greet]
description = "Say hello"
command = ["echo", "{name}"]
[templates.greet.parameters.name]
type = "string"

[templates.sign-in]
description = "Sign in somewhere"
command = ["echo", "{token}"]
[templates.sign-in.parameters.token]
type = "string"
sensitive = true
"""

PROBLEM_MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "error_type",
    "request_id",
    "trace_id",
    "audit_record_id",
    "audit",
}

TRACE_URL = "http://localhost:16686/trace/{trace_id}"


class ApiUnderTest:
    """An application over a ledger of its own; requests run as ASGI calls, each inside a server span.

    The clock stands at the middle of a minute, so that no test meets the end of one by accident.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        authenticate: Callable[[Authenticator], Authenticator] = BearerAuthenticator,
        bounds: Bounds | None = None,
        settings: ApiSettings | None = None,
        templates: str = TEMPLATES,
        poll_s: float = POLL_S,
        max_waiting: int = MAX_WAITING,
        max_follows: int = MAX_FOLLOWS,
        limits: RequestLimits | None = None,
    ) -> None:
        self.store = store
        self.waits = JobWaits(store.reads, poll_s=poll_s, max_waiting=max_waiting)
        self.follows = Follows(store.reads, poll_s=poll_s, max_follows=max_follows)
        self.lane = store.lane(on_commit=lambda _: self._wake())
        self.clock = store.clock
        if isinstance(self.clock, ManualClock | LedgerClock):
            self.clock.advance(30 - self.clock.now_ns // 1_000_000_000 % 60)
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        tracer = provider.get_tracer("test")
        (folder / "jobs.toml").write_text(templates, encoding="utf-8")
        limits = limits or RequestLimits()
        self.over_limit: Counter[str] = Counter()
        self.throttle = Throttle(limits, store.reads, self.clock, self._seconds)
        self.tenant_limits = TenantLimits(limits, store.reads, self._seconds)
        self.services = Services(
            ledger=self.lane,
            templates=TemplatesInForce(load_templates(folder / "jobs.toml")),
            secret=SECRET,
            tracing=Tracing(tracer),
            clock=self.clock,
            new_id=lambda: next(store.ids),
            on_records=self.tenant_limits.recorded,
        )
        self.tallies = Tallies(self.services, bounds)
        adoption = KeyAdoption(
            self.services, store.reads, lambda: [KEY.public_key()], lambda record: self.checkpoints.holds(record)
        )
        self.monotonic = time.monotonic()
        self.keys = CoveredKeys(store.reads, SECRET, adoption.adopt, lambda: self.monotonic)
        self.checks: dict[str, str] = {"ledger": "ok"}
        self.parts = ApiServices(
            services=self.services,
            reads=store.reads,
            authenticator=authenticate(ApiKeyAuthenticator(self.keys, ApiKeyUses(self.lane, self.clock), self.clock)),
            tallies=self.tallies,
            throttle=self.throttle,
            tenant_limits=self.tenant_limits,
            on_over_limit=lambda limit: self.over_limit.update([limit]),
            waits=self.waits,
            follows=self.follows,
            ready=lambda: self.checks,
            render_metrics=lambda: b"# TYPE up gauge\nup 1\n",
            settings=settings or ApiSettings(version="0.1.0", trace_url_template=TRACE_URL),
        )
        self.app = create_app(self.parts)
        instruments = Instruments(MeterProvider().get_meter("test"))
        self.call = ServerSpans(self.app, tracer, instruments, time.monotonic)
        self._names = count(1)
        # The stream opens with a record of its own: from here on there are those only that a test causes.
        self.lane.submit(lambda _: None).result()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    @cached_property
    def checkpoints(self) -> CheckpointWriter:
        """The checkpoint writer of the same process."""
        return self.store.checkpoints(self.lane)

    def close(self) -> None:
        """Stop the event loop; the ledger belongs to the store."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _seconds(self) -> float:
        """Return the time that limits go by: it stands still unless a test moves the clock."""
        return self.clock() / 1e9

    def _wake(self) -> None:
        self.waits.wake()
        self.follows.wake()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's event loop."""
        return self.start(work).result(30)

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine on the application's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def key(self, name: str, *roles: str, tenant: str = "default", person: str | None = None) -> IssuedKey:
        """Create an API key."""
        return self._keys(tenant).create(name, roles, TenantId(tenant), person=person).value

    def revoke(self, name: str, tenant: str = "default") -> None:
        """Revoke an API key."""
        self._keys(tenant).revoke(name, TenantId(tenant))

    def _keys(self, tenant: str) -> KeyOperations:
        context = AuditContext(
            actor=Actor("root", "user", "os"), tenant_id=TenantId(tenant), source="cli", roles=frozenset({ADMIN})
        )
        return KeyOperations(self.services, context, self.services.tracing.root("keys"))

    def client(self, name: str = "anna", *roles: str, tenant: str = "default") -> "Client":
        """Return a client with a key of its own; without roles, one that may do everything."""
        key = self.key(name, *(roles or (ADMIN,)), tenant=tenant)
        return Client(self, key.key, name, key_id=key.id)

    def client_until(self, name: str, *roles: str, expires_ns: int | None) -> "Client":
        """Return a client whose key ends at this time."""
        key = self._keys("default").create(name, roles, TenantId("default"), expires_ns).value
        return Client(self, key.key, name)

    def finish_run(
        self,
        job_id: str,
        error_type: str | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        stderr_end: str | None = None,
    ) -> Job:
        """Claim jobs until it is this one's turn, and end its run as a worker does; with an error type, for good."""
        worker = RunOperations(self.services, "worker-1", 60_000_000_000, lambda _: 0)
        claimed = worker.claim()
        while claimed is not None and claimed.job.job_id != job_id:
            claimed = worker.claim()
        assert claimed is not None
        ended = Ended(
            error_type=error_type,
            reason=error_type,
            exit_code=0 if error_type is None else 1,
            duration_ms=5,
            is_retryable=False,
            artifacts=sorted((artifacts or {}).items()),
            stderr_end=stderr_end,
        )
        return worker.finish(claimed, ended)

    def someone(self, *roles: str, tenant: str = "default") -> "Client":
        """Return a client under a name that nobody else has."""
        return self.client(f"someone-{next(self._names)}", *roles, tenant=tenant)

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lane up until what is yielded is called, or the block ends."""
        started, go = threading.Event(), threading.Event()

        def hold(_: Transaction) -> None:
            started.set()
            go.wait()

        self.lane.submit(hold)
        started.wait()
        try:
            yield go.set
        finally:
            go.set()

    @property
    def waiting(self) -> int:
        """How much was handed to the lane and not begun."""
        return self.store.waiting(self.lane)

    def records(self, **where: Any) -> Sequence["Record"]:
        """Return the records that match, oldest first."""
        return [Record(row) for row in reversed(self._newest(5000, **where))]

    def _newest(self, limit: int, **where: Any) -> Sequence[RecordRow]:
        stated = {
            name: (value,) if isinstance(value, str) and name != "tenant_id" else value for name, value in where.items()
        }
        return self.store.reads.records(RecordFilter(**stated), None, limit).rows

    def record(self, **where: Any) -> "Record":
        """Return the one record that matches; anything but one fails the test."""
        (record,) = self.records(**where)
        return record

    @contextmanager
    def leaves(self, *events: str) -> Iterator[list["Record"]]:
        """Fail unless the block leaves exactly these records, in this order; they are in the list afterwards."""
        before = self._newest(1)
        left: list[Record] = []
        yield left
        known = {row.record_id for row in before}
        left.extend(
            reversed([Record(row) for row in takewhile(lambda row: row.record_id not in known, self._newest(50))])
        )
        assert [record.row.event_name for record in left] == list(events), left

    def refused(
        self, event: str, status: int, error_type: str, send: Callable[[], httpx.Response]
    ) -> tuple[dict[str, Any], "Record"]:
        """Send a request that is refused, and return its problem and its record.

        Fails unless it leaves exactly one record, of the event that was tried, which says what the answer says.
        """
        with self.leaves(event) as left:
            answer = send()
        (record,) = left
        problem = problem_of(answer, status, error_type)
        assert problem["audit"] == record.receipt
        assert record.result == ("denied" if status == 403 else "rejected")
        assert record[names.AUDIT_OUTCOME] == "failure"
        assert record[names.AUDITRACE_REASON] == problem["detail"]
        assert record[names.ERROR_TYPE] == error_type
        assert record[names.AUDITRACE_REQUEST_ID] == problem["request_id"]
        assert record.body["trace_id"] == problem["trace_id"]
        assert record.changes.keys() <= {"filter"}
        return problem, record


def problem_of(answer: httpx.Response, status: int, error_type: str) -> dict[str, Any]:
    """Return the problem that an answer is, in full: RFC 9457 and the members that this service adds."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) == PROBLEM_MEMBERS
    assert problem["status"] == status
    assert problem["error_type"] == error_type
    assert problem["type"] == f"urn:auditrace:problem:{error_type}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["audit_record_id"] == (problem["audit"]["record_id"] if problem["audit"] else None)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["trace_id"] == answer.headers["traceresponse"].split("-")[1]
    return problem


class Record:
    """A committed record, its attributes by their constants."""

    def __init__(self, row: RecordRow) -> None:
        self.row = row
        self.body: dict[str, Any] = json.loads(row.body)
        self.attributes: dict[str, Any] = self.body["attributes"]

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def __repr__(self) -> str:
        return f"{self.row.event_name} {self.result} {self.attributes.get(names.AUDITRACE_REASON, '')}"

    @property
    def receipt(self) -> dict[str, Any]:
        """What its caller gets back; the hash is computed here, from the body."""
        return {
            "record_id": self.row.record_id,
            "stream_id": self.row.stream_id,
            "sequence_number": self.row.sequence_number,
            "record_hash": hashlib.sha256(self.row.body.encode()).hexdigest(),
        }

    @property
    def result(self) -> str:
        """Its result."""
        return self.attributes[names.AUDITRACE_RESULT]

    @property
    def changes(self) -> dict[str, Any]:
        """What changed."""
        return self.attributes.get(names.AUDITRACE_CHANGES, {})

    @property
    def target(self) -> tuple[str, str]:
        """Type and id of its target."""
        return self.attributes[names.AUDIT_TARGET_TYPE], self.attributes[names.AUDIT_TARGET_ID]


class Client:
    """An API client."""

    def __init__(
        self,
        api: ApiUnderTest,
        token: str | None,
        name: str = "anonymous",
        source: str = "192.0.2.7",
        key_id: str | None = None,
    ) -> None:
        self.api = api
        self.token = token
        self.name = name
        self.source = source
        self.key_id = key_id

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request and return its answer; takes what `ask` takes."""
        return self.api.wait(self.ask(method, path, **more))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request from the application's event loop."""
        all_headers = {"User-Agent": "tests/1", **(headers or {})}
        if self.token is not None:
            all_headers.setdefault("Authorization", f"Bearer {self.token}")
        encoded = {name: value.encode() for name, value in all_headers.items()}
        async with self._http() as client:
            return await client.request(method, path, json=json, content=content, headers=encoded)

    def _http(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.api.call, client=(self.source, 1234))
        return httpx.AsyncClient(transport=transport, base_url="http://auditrace.test")

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Send a GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """Send a POST."""
        return self.request("POST", path, json=json, **more)

    def put(self, path: str, content: bytes, **more: Any) -> httpx.Response:
        """Send a PUT."""
        return self.request("PUT", path, content=content, **more)

    def send(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> httpx.Response:
        """Send one request with exactly these headers, in this order, doubled ones included."""

        async def send() -> httpx.Response:
            async with self._http() as client:
                return await client.request(method, path, content=body, headers=list(headers))

        return self.api.wait(send())

    def new_job(self, template: str = "greet", **parameters: Any) -> dict[str, Any]:
        """Create a job and return it."""
        body = {"template": template, "parameters": parameters or {"name": "world"}}
        answer = self.post("/v1/jobs", body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def finished_job(
        self,
        error_type: str | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        stderr_end: str | None = None,
    ) -> dict[str, Any]:
        """Create a job, run it to its end and return it."""
        job = self.drafted_job()
        assert self.post(f"/v1/jobs/{job['id']}/run").status_code == 200
        self.api.finish_run(job["id"], error_type, artifacts, stderr_end)
        answer = self.get(f"/v1/jobs/{job['id']}")
        assert answer.status_code == 200, answer.text
        return {**answer.json(), "audit": job["audit"]}

    def drafted_job(self, template: str = "greet", **parameters: Any) -> dict[str, Any]:
        """Create a job, draft it and return it."""
        job = self.new_job(template, **parameters)
        answer = self.post(f"/v1/jobs/{job['id']}/draft")
        assert answer.status_code == 200, answer.text
        return answer.json()
