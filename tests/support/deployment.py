"""A whole deployment for fault tests: service, relay, the real collector and a scriptable backend."""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.collector import ROOT, Collector
from tests.support.load import Load
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.processes import Process, pause, start_process
from tests.support.service import STOP_S, Service


class RelayProcess:
    """`auditrace relay` as a process of its own, over the folder of a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._process: Process | None = None

    def start(self) -> None:
        """Start to deliver."""
        with self._service.log.open("ab") as log:
            self._process = start_process(
                [sys.executable, "-m", "service", "relay"], env=self._service.environment, cwd=ROOT, stderr=log
            )

    def kill(self) -> None:
        """End it with SIGKILL; does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it with SIGSTOP, as if its machine hung."""
        if self._process is not None:
            pause(self._process, self._service.environment["AUDITRACE_DATABASE"])

    def resume(self) -> None:
        """Let it go on, with SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status; 0 when it does not run."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(STOP_S)
        self._process = None
        return status


class Deployment:
    """Service, relay, collector and backend; what is killed can be started again on the same ports and folders."""

    def __init__(
        self,
        folder: Path,
        *,
        script: Callable[[Request], Answer] | None = None,
        service_settings: Mapping[str, str] | None = None,
        collector_settings: Mapping[str, str] | None = None,
        overlays: Sequence[Path] = (),
    ) -> None:
        self.backend = OtlpSink(script)
        self._stack = ExitStack()
        self._stack.enter_context(self.backend)
        settings = {"AUDIT_LOGS_ENDPOINT": self.backend.http_endpoint, **(collector_settings or {})}
        self.collector = Collector(folder / "collector", settings, overlays)
        self._reserved = ReservedPorts(1)
        self.service = Service(
            folder / "service",
            {
                "AUDITRACE_AUDIT_ENDPOINT": self.collector.audit_endpoint,
                "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
                **(service_settings or {}),
            },
            ["--no-relay", "--port", str(self._reserved.numbers[0])],
        )
        self.relay = RelayProcess(self.service)

    def __enter__(self) -> Self:
        try:
            self.collector.start()
            self.service.start()
            self.relay.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def load(self, clients: int = 4) -> Load:
        """Return clients that have not begun yet."""
        return Load([self.service.url], self.service.admin(), clients)

    def delivered(self) -> int:
        """Return how many committed records are delivered or parked."""
        ((count,),) = self.service.rows("SELECT coalesce(sum(number), 0) FROM delivery_cursors")
        return int(count)

    def undelivered(self) -> int:
        """Return how many committed records are neither delivered nor parked."""
        ((depth,),) = self.service.rows(
            "SELECT coalesce(sum(audit_streams.number - delivery_cursors.number), 0)"
            " FROM audit_streams JOIN delivery_cursors USING (stream_id)"
        )
        return int(depth)

    def settle(self, timeout_s: float = 120.0) -> None:
        """Stop the service cleanly, and wait until everything that was committed is delivered."""
        assert self.service.stop() == 0
        poll_until(lambda: self.undelivered() == 0, "the outbox to drain", timeout_s)
        status = self.relay.stop()
        assert status == 0, f"exit status {status}: {self.service.log.read_text(errors='replace')[-4000:]}"

    def _end(self) -> None:
        self.relay.kill()
        self.service.kill()
        self.collector.kill()
        self._stack.close()
