"""Runs the backends that SREs use, as `make backends` built them, and asks their own query APIs.

Each runs on free loopback ports over a folder of the test's own; what is in memory there goes with the process.
"""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.support.collector import ROOT, require_binary
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.processes import Process, start_process

JAEGER_CONFIG = ROOT / "deploy" / "backends" / "jaeger" / "jaeger.yaml"


class BackendError(Exception):
    """A backend did not start, or did not end when asked; the message ends with its log."""


class Backend:
    """One backend process; a kind of it says how it is started and what it answers.

    Args:
        folder: Gets the backend's data and its log.
        port_count: How many addresses it listens on.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, port_count: int) -> None:
        self.folder = folder
        self._reserved = ReservedPorts(port_count)
        self.addresses = [f"127.0.0.1:{port}" for port in self._reserved.numbers]
        self.log_path = folder / f"{self.name}.log"
        self._process: Process | None = None

    def arguments(self) -> Sequence[str]:
        """Returns the command line behind the binary."""
        raise NotImplementedError

    def settings(self) -> Mapping[str, str]:
        """Returns the environment."""
        return {}

    def health_url(self) -> str:
        """Returns what answers 200 once requests are served."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        binary = require_binary(self.name, "make backends")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = start_process(
                [binary, *self.arguments()], env=self.settings(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            poll_until(self._is_healthy, f"a healthy {self.name}", timeout_s=300.0)
        except TimeoutError as error:
            self._kill()
            raise BackendError(f"{error}\n{self._log_tail()}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its data are the test's, and go with it: there is nothing to end in order.
        self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise BackendError(f"{self.name} ended with {self._process.returncode}\n{self._log_tail()}")
        try:
            with urllib.request.urlopen(self.health_url(), timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


class VictoriaLogs(Backend):
    """A log backend.

    Args:
        folder: Gets its data and its log.
        retention: How old a record may be; tests have records of a fixed day, so by default nearly for ever.
    """

    name = "victoria-logs"

    def __init__(self, folder: Path, retention: str = "100y") -> None:
        super().__init__(folder, 1)
        self._retention = retention

    @property
    def otlp_endpoint(self) -> str:
        """OTLP/HTTP base URL, as `AUDIT_LOGS_ENDPOINT` and `LOGS_ENDPOINT` take it."""
        return f"http://{self.addresses[0]}/insert/opentelemetry"

    def arguments(self) -> Sequence[str]:
        """Returns the command line behind the binary."""
        return (
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr={self.addresses[0]}",
            f"-retentionPeriod={self._retention}",
            # The default is to refuse to write when the disk has less than that free.
            "-storage.minFreeDiskSpaceBytes=10MB",
        )

    def health_url(self) -> str:
        """Returns what answers 200 once requests are served."""
        return f"http://{self.addresses[0]}/health"

    def query(self, logsql: str) -> list[dict[str, str]]:
        """Returns what its query API answers: one mapping for each log, all values as text."""
        form = urllib.parse.urlencode({"query": logsql}).encode()
        with urllib.request.urlopen(f"http://{self.addresses[0]}/select/logsql/query", form, timeout=30) as answer:
            return [json.loads(line) for line in answer.read().split(b"\n") if line]

    def dropped(self) -> int:
        """Returns how many logs it took and dropped because of their time, as its own metrics say."""
        with urllib.request.urlopen(f"http://{self.addresses[0]}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if "vl_rows_dropped_total" in line and "timestamp" in line)


class Jaeger(Backend):
    """A trace backend."""

    name = "jaeger"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 4)

    @property
    def otlp_endpoint(self) -> str:
        """OTLP/gRPC `host:port`, as `TRACES_ENDPOINT` and `JAEGER_ENDPOINT` take it."""
        return self.addresses[0]

    def arguments(self) -> Sequence[str]:
        """Returns the command line behind the binary."""
        return (f"--config={JAEGER_CONFIG}",)

    def settings(self) -> Mapping[str, str]:
        """Returns the environment."""
        names = ("JAEGER_OTLP", "JAEGER_QUERY_HTTP", "JAEGER_QUERY_GRPC", "JAEGER_HEALTH")
        return dict(zip(names, self.addresses, strict=True))

    def health_url(self) -> str:
        """Returns what answers 200 once requests are served."""
        return f"http://{self.addresses[3]}/status"

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """Returns the spans of a trace as OTLP JSON; empty when it knows no such trace."""
        try:
            answer = self._get(f"/api/v3/traces/{trace_id}")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return []
                raise
        return [
            span
            for resource in answer["result"]["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope.get("spans", ())
        ]

    def search(self, service: str, tags: Mapping[str, str]) -> list[str]:
        """Returns the ids of the traces of a service that have a span with these tags, as its page finds them."""
        query = urllib.parse.urlencode({"service": service, "tags": json.dumps(tags), "start": 0, "limit": 100})
        return [found["traceID"] for found in self._get(f"/api/traces?{query}")["data"]]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.addresses[1]}{path}", timeout=30) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded
