"""Clients and workers over one real ledger, without HTTP: what a deployment does with jobs, in this process."""

import asyncio
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.bootstrap.templates import load_templates
from service.execution.preparation import RunSurroundings
from service.jobs.model import Job, Run, Status, TenantId
from service.operations.base import Committed, Services
from service.operations.jobs import JobOperations
from service.operations.runs import RunOperations
from service.operations.templates_in_force import TemplatesInForce
from service.ports import Ledger, Transaction
from service.records import AuditContext
from service.roles import ADMIN
from service.worker.worker import Worker, WorkerSettings
from telemetry import names
from telemetry.audit.record import Actor
from telemetry.propagation import remote_context
from telemetry.tracing import AuditedSpan, Tracing
from tests.support.both_stores import POSTGRES, Store
from tests.support.poll_until import poll_until
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET

T = TypeVar("T")

TEMPLATES = """
[templates.shell]
description = "A script of the test's own"
command = ["sh", "-c", "{script}", "{marker}"]
pass_environment = ["PASSED"]
environment = { FIXED = "yes" }
[templates.shell.parameters]
script = { type = "string", pattern = ".*", max_length = 4000 }
marker = { type = "string", default = "job" }
[templates.shell.limits]
memory = "256MiB"
cpu_seconds = 30
output = "64KiB"

[templates.short]
description = "Stopped after a moment"
command = ["sh", "-c", "{script}"]
timeout = "200ms"
max_attempts = 1
parameters.script = { type = "string", pattern = ".*" }

[templates.picky]
description = "Only exit code 75 is worth another attempt"
command = ["sh", "-c", "{script}"]
retry_exit_codes = [75]
parameters.script = { type = "string", pattern = ".*" }

[templates.sign-in]
description = "Takes a secret"
command = ["sh", "-c", 'printf %s "$0"; echo x > "out/$0"', "{token}"]
parameters.token = { type = "string", sensitive = true }

[templates.sign-in-refused]
description = "Takes a secret, and tells it while it fails"
command = ["sh", "-c", 'printf "no \\033[1m%s\\n%s" "$0" "$0" >&2; exit 1', "{token}"]
max_attempts = 1
parameters.token = { type = "string", sensitive = true }

[templates.absent]
description = "A program that this machine lacks"
command = ["no-such-program", "{script}"]
retry_exit_codes = []
parameters.script = { type = "string", pattern = ".*" }

[templates.guarded]
description = "Another person has to confirm"
command = ["true"]
requires_confirmation = true
distinct_confirmer = true
"""


class RunningClock:
    """Nanoseconds since an epoch that pass as time does, the same for all processes; never the same twice in one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_ns = 1_767_323_045_000_000_000
        self._last_ns = 0

    def __call__(self) -> int:
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.monotonic_ns() + self._offset_ns)
            return self._last_ns

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        with self._lock:
            self._offset_ns += int(seconds * 1e9)


class Durations:
    """Takes what a worker measures."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str | None]] = []

    def run_ended(self, duration_s: float, template: str, error_type: str | None) -> None:
        """Note a run; its duration is positive."""
        assert duration_s > 0
        self.runs.append((template, error_type))


class Record:
    """A committed record as a reader of the ledger sees it."""

    def __init__(self, body: str) -> None:
        self.body: Mapping[str, Any] = json.loads(body)
        self.attributes: Mapping[str, Any] = self.body["attributes"]
        self.event_name: str = self.body["event_name"]
        self.record_id: str = self.attributes[names.AUDIT_RECORD_ID]
        self.result: str = self.attributes[names.AUDITRACE_RESULT]
        self.changes: Mapping[str, Any] = self.attributes.get(names.AUDITRACE_CHANGES, {})
        self.span = (self.body["trace_id"], self.body["span_id"])

    @property
    def story(self) -> str:
        """The record in a few words: event, result, and the change of the status if there was one."""
        status = self.changes.get("status", {})
        hop = f" {status.get('from', '')}>{status.get('to', '')}" if status else ""
        return f"{self.event_name} {self.result}{hop}"


class Jobs:
    """A ledger with everything that clients and workers need, opened as one process."""

    def __init__(
        self,
        folder: Path,
        templates: str = TEMPLATES,
        instance: int = 0,
        around: Callable[[Ledger], Ledger] = lambda ledger: ledger,
        store: Store | None = None,
    ) -> None:
        """Open the ledger in `folder`, another process as another `instance`; `around` wraps its lane.

        Or work on a `store` whose clock passes as time does.
        """
        self.folder = folder
        self._around = around
        self._opened_store = store is None
        self.store: Store = store or SqliteStore(folder, RunningClock(), instance)
        self.clock = self.store.clock
        self.lane = self.store.lane(on_commit=self._on_commit)
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("test")
        self.durations = Durations()
        self.runs_folder = folder / "runs"
        self._workers: list[Worker] = []
        self._ids = threading.Lock()
        self.templates(templates)

    def beside(self, instance: int) -> "Jobs":
        """Open another process on the same ledger."""
        opened = Jobs(self.folder, instance=instance, store=self.store.beside(instance))
        opened._opened_store = True
        return opened

    def templates(self, text: str) -> None:
        """Offer these templates from now on."""
        path = self.folder / "jobs.toml"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
        self.services = Services(
            ledger=self._around(self.lane),
            templates=TemplatesInForce(load_templates(path)),
            secret=SECRET,
            tracing=Tracing(self.tracer),
            clock=self.clock,
            new_id=self._new_id,
        )

    def close(self) -> None:
        """Stop the workers at once and close the ledger, if it was opened here."""
        for worker in self._workers:
            worker.stop(0)
        if self._opened_store:
            self.store.close()

    def outlive_leases(self) -> None:
        """Let as much time pass as it takes until the leases of workers that died are over, where that takes time."""
        if self.store.kind == POSTGRES:
            self.clock.advance(61)

    def crash(self) -> None:
        """Leave lane and leases behind, as a process that is killed does, and begin again as a new process."""
        self.store.kill(self.lane)
        self.lane = self.store.lane(on_commit=self._on_commit)
        self.services = msgspec.structs.replace(self.services, ledger=self._around(self.lane))

    def together(self, calls: Sequence[Callable[[], object]]) -> Sequence[object]:
        """Make each call in a thread of its own while the lane is held up, so that all are committed as one group.

        Each call must hand exactly one work to the lane first; they get there in this order. Returns what each call
        returned or raised.
        """
        started, go = threading.Event(), threading.Event()

        def hold(_: Transaction) -> None:
            started.set()
            go.wait()

        def outcome(call: Callable[[], object]) -> object:
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - the caller looks at it
                return error

        self.lane.submit(hold)
        started.wait()
        with ThreadPoolExecutor(max(1, len(calls))) as threads:
            futures: list[Future[object]] = []
            for count, call in enumerate(calls, start=1):
                futures.append(threads.submit(outcome, call))
                poll_until(lambda count=count: self.store.waiting(self.lane) >= count, "the call to reach the lane")
            go.set()
            return [future.result() for future in futures]

    def operations(
        self, worker_id: str | None = None, *, lease_s: float = 60.0, retry_delay_s: float = 0.0
    ) -> RunOperations:
        """Return the operations of a worker of this process."""
        owner = worker_id or self.store.locks(self.lane).owner
        return RunOperations(self.services, owner, int(lease_s * 1e9), lambda _: int(retry_delay_s * 1e9))

    def worker(
        self,
        *,
        slots: int = 2,
        renew_s: float = 10.0,
        operations: RunOperations | None = None,
        environment: Mapping[str, str] | None = None,
        max_artifact_bytes: int = 2**20,
    ) -> Worker:
        """Start a worker."""
        around = RunSurroundings(
            environment=environment or {},
            work_folder=self.runs_folder,
            max_artifact_bytes=max_artifact_bytes,
            owner_descriptor=self.store.locks(self.lane).descriptor,
        )
        worker = Worker(
            operations or self.operations(),
            self.store.reads,
            SECRET,
            WorkerSettings(slots=slots, renew_s=renew_s, around=around),
            self.durations,
            self.clock,
        )
        self._workers.append(worker)
        worker.start()
        return worker

    def client(
        self,
        name: str = "anna",
        *roles: str,
        tenant: str = "default",
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> "Client":
        """Return a client; without roles, one that may do everything; its requests may come with a trace context."""
        trace = Context() if traceparent is None else remote_context(traceparent, tracestate)
        return Client(self, name, roles or (ADMIN,), tenant, trace)

    def queued(self, script: str, template: str = "shell", tenant: str = "default", **more: object) -> Job:
        """Return a job with this script that is due now."""
        client = self.client(tenant=tenant)
        job = client.create(template, {"script": script, **more}).value
        client.draft(job.job_id)
        return client.run(job.job_id).value

    def job(self, job_id: str) -> Job:
        """Return the newest version of a job."""
        job = self.store.reads.job(job_id, None)
        assert job is not None
        return job

    def until(self, job_id: str, *statuses: Status, timeout_s: float = 30.0) -> Job:
        """Wait until the job is in one of these states."""
        what = f"job {job_id} to be {' or '.join(statuses)}"
        poll_until(lambda: self.job(job_id).status in statuses, what, timeout_s)
        return self.job(job_id)

    def runs(self, job_id: str) -> Sequence[Run]:
        """Return the runs of a job."""
        return self.store.reads.runs(job_id)

    def until_closed(self, job_id: str) -> Run:
        """Wait until the last run of the job is closed; a cancelled job is final before its run is."""
        poll_until(lambda: self.runs(job_id)[-1].ended_ns is not None, f"the last run of {job_id} to be closed", 30.0)
        return self.runs(job_id)[-1]

    def artifacts(self, job_id: str, run: int = 1) -> dict[str, bytes]:
        """Return what a run left behind."""
        reads = self.store.reads
        return {
            content.name: reads.artifact_part(job_id, run, content.name, 0, content.size) or b""
            for content in reads.artifacts(job_id, run)
        }

    def records(self, job_id: str | None = None) -> Sequence[Record]:
        """Return the records of a job, or all, in the order of their commits."""
        of_job = ("WHERE job_id = ?", [job_id]) if job_id else ("", [])
        rows = self.store.rows(f"SELECT body FROM audit_records {of_job[0]} ORDER BY position", *of_job[1])
        return [Record(body) for (body,) in rows]

    def stories(self, job_id: str) -> Sequence[str]:
        """Return the records of a job in a few words each."""
        return [record.story for record in self.records(job_id)]

    def span(self, name: str, which: int = -1) -> ReadableSpan:
        """Return a finished span of this name."""
        return [span for span in self.spans.get_finished_spans() if span.name == name][which]

    def _on_commit(self, outcomes: Sequence[str]) -> None:
        self.store.committed.extend(outcomes)
        for worker in self._workers:
            worker.wake()

    def _new_id(self) -> str:
        with self._ids:
            return next(self.store.ids)


class Client:
    """One authenticated client. Each call is a request with a span and a request id of its own."""

    _requests = itertools.count(1)

    def __init__(self, jobs: Jobs, name: str, roles: Sequence[str], tenant: str, trace: Context) -> None:
        self._jobs = jobs
        self._actor = Actor(name, "user", "key")
        self._roles = frozenset(roles)
        self._tenant = TenantId(tenant)
        self._trace = trace

    def create(self, template: str, parameters: Mapping[str, object], *, key: str | None = None) -> Committed[Job]:
        """Create a job."""
        body = f"{template} {sorted(parameters.items())}"
        return self._call("/v1/jobs", body, key, lambda operations: operations.create(template, parameters))

    def write_input(self, job_id: str, name: str, payload: bytes) -> Committed[Job]:
        """Upload an input."""
        return self._call("inputs", "", None, lambda operations: operations.write_input(job_id, name, payload, None))

    def draft(self, job_id: str, *, key: str | None = None, if_match: int | None = None) -> Committed[Job]:
        """Ask for the plan."""
        return self._call("draft", "", key, lambda operations: operations.draft(job_id, if_match))

    def confirm(
        self,
        job_id: str,
        *,
        plan_sha256: str | None = None,
        notes: str | None = None,
        run: bool = True,
        key: str | None = None,
    ) -> Committed[Job]:
        """Confirm the job's plan, as it is or as named."""
        plan = self._jobs.job(job_id).plan
        named = plan_sha256 or (plan.sha256 if plan else "")
        return self._call(
            "confirm",
            f"{named} {run}",
            key,
            lambda operations: operations.confirm(job_id, plan_sha256=named, notes=notes, run=run, if_match=None),
        )

    def reject(
        self, job_id: str, *, reason: str = "wrong", plan_sha256: str | None = None, key: str | None = None
    ) -> Committed[Job]:
        """Reject the job's plan."""
        return self._call(
            "reject",
            f"{reason} {plan_sha256}",
            key,
            lambda operations: operations.reject(job_id, reason=reason, plan_sha256=plan_sha256, if_match=None),
        )

    def run(self, job_id: str, *, key: str | None = None) -> Committed[Job]:
        """Trigger the run."""
        return self._call("run", "", key, lambda operations: operations.run(job_id, None))

    def retry(self, job_id: str, *, reason: str | None = None, key: str | None = None) -> Committed[Job]:
        """Ask for another run of a failed job."""
        return self._call("retry", reason or "", key, lambda operations: operations.retry(job_id, None, reason))

    def cancel(self, job_id: str, *, reason: str | None = None, key: str | None = None) -> Committed[Job]:
        """Cancel the job."""
        return self._call("cancel", reason or "", key, lambda operations: operations.cancel(job_id, None, reason))

    def _call(
        self, route: str, body: str, key: str | None, call: Callable[[JobOperations], Coroutine[Any, Any, T]]
    ) -> T:
        span = AuditedSpan(self._jobs.tracer.start_span(f"request {route}", context=self._trace))
        context = AuditContext(
            actor=self._actor,
            tenant_id=self._tenant,
            source="api",
            roles=self._roles,
            request_id=f"request-{next(self._requests)}",
            http_route=route,
            idempotency_key_sha256=None if key is None else hashlib.sha256(key.encode()).hexdigest(),
            body_sha256=hashlib.sha256(body.encode()).hexdigest(),
        )
        try:
            return asyncio.run(call(JobOperations(self._jobs.services, context, span)))
        finally:
            span.end()
