"""A service with a worker of its own, the shipped collector, real backends, and a story that left records in them."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.support.backends import Jaeger, VictoriaLogs
from tests.support.collector import ROOT, Collector
from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process
from tests.support.prometheus import Prometheus
from tests.support.service import STOP_S, Service

API = "auditrace"
WORKER = "auditrace-worker"
DENIED_LOGINS = 5
_DENIED = 'http_server_request_duration_seconds_count{http_response_status_code="401", http_route="/v1/jobs"}'


class Observed:
    """Everything running. At a baseline of 0 %, only traces that records point to are kept.

    Args:
        folder: gets what all of them write.
    """

    def __init__(self, folder: Path) -> None:
        self.logs = VictoriaLogs(folder / "logs")
        self.traces = Jaeger(folder / "traces")
        self.metrics = Prometheus(folder / "metrics")
        self.collector = Collector(
            folder / "collector",
            {
                "AUDIT_LOGS_ENDPOINT": self.logs.otlp_endpoint,
                "LOGS_ENDPOINT": self.logs.otlp_endpoint,
                "TRACES_ENDPOINT": self.traces.otlp_endpoint,
                "JAEGER_ENDPOINT": self.traces.otlp_endpoint,
                "METRICS_ENDPOINT": self.metrics.otlp_endpoint,
                "TRACE_SAMPLING_PERCENTAGE": "0",
            },
        )
        self.metrics.targets.append(urlsplit(self.collector.metrics_endpoint).netloc)
        base = self.collector.traces_endpoint.removesuffix("/v1/traces")
        environment = {
            "AUDITRACE_AUDIT_ENDPOINT": self.collector.audit_endpoint,
            "OTEL_EXPORTER_OTLP_ENDPOINT": base,
            "OTEL_SERVICE_NAME": API,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "AUDITRACE_CHECKPOINT_INTERVAL": "2s",
        }
        self.service = Service(folder / "service", environment, ["--no-worker"])
        self.jobs: Mapping[str, str] = {}
        self._stack = ExitStack()
        self._worker: Process | None = None

    def __enter__(self) -> Self:
        with self._stack as starting:
            for part in (self.logs, self.traces, self.metrics, self.collector, self.service):
                starting.enter_context(part)
            with self.service.log.open("ab") as log:
                self._worker = start_process(
                    [sys.executable, "-m", "service", "work"],
                    env={**self.service.environment, "OTEL_SERVICE_NAME": WORKER},
                    cwd=ROOT,
                    stderr=log,
                )
            self._stack = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
        self._stack.__exit__(kind, error, trace)

    def tell(self) -> None:
        """Let people work: two jobs, one approved and one that fails, with refused attempts and denied logins."""
        olga = self.service.client(self.service.key("olga", "operator"))
        ann = self.service.client(self.service.key("ann", "approver"))
        approved = olga.create("approved")["id"]
        plan = olga.post(f"/v1/jobs/{approved}/draft")["plan"]["sha256"]
        approval = {"confirmed": True, "plan_sha256": plan}
        olga.post(f"/v1/jobs/{approved}/confirm", approval, expect=403)
        ann.post(f"/v1/jobs/{approved}/confirm", {**approval, "plan_sha256": "0" * 64}, expect=409)
        ann.post(f"/v1/jobs/{approved}/confirm", approval)
        failing = olga.run("fail")
        olga.until(approved, "succeeded")
        olga.until(failing, "failed")
        for number in range(DENIED_LOGINS):
            assert httpx.get(f"{self.service.url}/v1/jobs", headers={"Authorization": "Bearer no"}).status_code == 401
            if number == 0:
                # Prometheus sees an increase only if it has seen a smaller value before.
                poll_until(lambda: bool(self.metrics.query(_DENIED)), "the first denied login in Prometheus")
        self.jobs = {"approved": approved, "failing": failing}

    def settle(self) -> None:
        """Stop worker and service in order, and wait until every record and every span has arrived."""
        assert self._worker is not None
        self._worker.send_signal(signal.SIGTERM)
        assert self._worker.wait(STOP_S) == 0
        assert self.service.stop() == 0
        wanted = {record["attributes"]["audit.record.id"] for record in self.records()}
        poll_until(lambda: self.found_in_logs() >= wanted, "every record in VictoriaLogs")
        spans = {(record["trace_id"], record["span_id"]) for record in self.records()}

        def have_arrived() -> bool:
            there = {each for each in spans if each[1] in {span["spanId"] for span in self.traces.spans(each[0])}}
            spans.difference_update(there)
            return not spans

        poll_until(have_arrived, "every span in Jaeger")

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Return the body of every committed record, oldest first, straight from the database."""
        bodies = (json.loads(body) for (body,) in self.service.rows("SELECT body FROM audit_records"))
        return sorted(bodies, key=lambda body: (body["timestamp"], body["attributes"]["audit.sequence.number"]))

    def found_in_logs(self) -> set[str]:
        """Return the record ids that VictoriaLogs knows."""
        return {log["audit.record.id"] for log in self.logs.query('"audit.record.id":* | fields "audit.record.id"')}
