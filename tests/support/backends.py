"""Runs the backends that SREs use, as `make backends` built them, and asks their own query APIs.

Each runs on free loopback ports over a folder of the test's own; what is in memory there goes with the process.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.collector import ROOT, require_binary
from tests.support.ports import ReservedPorts
from tests.support.servers import Server

JAEGER_CONFIG = ROOT / "deploy" / "backends" / "jaeger" / "jaeger.yaml"


class Backend(Server):
    """One backend; its data are the test's and go with it, so it is killed at the end.

    Args:
        folder: Gets the backend's data and its log.
        port_count: How many addresses it listens on.
    """

    start_s = 300.0

    def __init__(self, folder: Path, port_count: int) -> None:
        super().__init__(folder / f"{self.name}.log")
        self.folder = folder
        self._reserved = ReservedPorts(port_count)
        self.addresses = [f"127.0.0.1:{port}" for port in self._reserved.numbers]

    @abstractmethod
    def arguments(self) -> Sequence[str]:
        """Returns the command line behind the binary."""

    def command(self) -> Sequence[str | Path]:
        """Returns the command line; without the binary it skips the test, or fails it where `CI` is set."""
        binary = require_binary(self.name, "make backends")
        self.folder.mkdir(parents=True, exist_ok=True)
        return [binary, *self.arguments()]

    def settings(self) -> Mapping[str, str]:
        """Returns the environment."""
        return {}


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
