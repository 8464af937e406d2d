"""Runs the real collector with the shipped configuration, so that tests meet what operators run and not a stand-in.

The binary is `build/bin/otelcol`, made by `make collector`; the configuration is the top-level `otel-collector.yaml`,
changed only through the environment settings that it documents and the overlays that are shipped with it.
Everything listens on and talks to loopback.
"""

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.ports import ReservedPorts
from tests.support.servers import Server, ServerError

ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / "build" / "bin"
CONFIG = ROOT / "otel-collector.yaml"
TLS = ROOT / "deploy" / "otelcol" / "tls.yaml"
PASS_THROUGH = ROOT / "deploy" / "otelcol" / "pass-through.yaml"

NOBODY_HTTP = "http://127.0.0.1:1"
"""An OTLP/HTTP base URL where nothing listens: what is sent there stays in the queue."""
NOBODY_GRPC = "127.0.0.1:1"
"""The same for OTLP/gRPC."""

LISTENERS = ("OTLP_GRPC", "OTLP_HTTP", "AUDIT_GRPC", "AUDIT_HTTP", "HEALTH", "COLLECTOR_METRICS")

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def require_collector() -> Path:
    """Returns the collector's binary; without one it skips the test, or fails it where `CI` is set."""
    return require_binary("otelcol", "make collector")


def require_binary(name: str, command: str) -> Path:
    """Returns a binary of build/bin; skips the test without it, or fails it where `CI` is set."""
    binary = BINARIES / name
    if binary.exists():
        return binary
    reason = f"NO {name.upper()}: {binary.relative_to(ROOT)} is missing, so it is not tested with; `{command}`"
    # The variable belongs to the test run; the rule against the environment is about the service's settings.
    if os.environ.get("CI"):  # noqa: TID251
        pytest.fail(reason)
    pytest.skip(reason)


class Collector(Server):
    """One collector over one folder; killing and restarting it keeps ports, queue, archive and log.

    Args:
        folder: Gets `queue/`, `archive/` and `collector.log`.
        settings: Environment settings of `otel-collector.yaml`, over the defaults of this harness
            (every backend unreachable, a short trace decision, every trace kept).
        overlays: Further configuration files, merged over the shipped one in this order.
    """

    name = "collector"
    start_s = 20.0

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, overlays: Sequence[Path] = ()) -> None:
        super().__init__(folder / "collector.log")
        self._configs = [CONFIG, *overlays]
        self.queue_dir = folder / "queue"
        self.archive_dir = folder / "archive"
        self._reserved = ReservedPorts(len(LISTENERS))
        self._ports = dict(zip(LISTENERS, self._reserved.numbers, strict=True))
        self._settings = {
            **{f"{name}_ENDPOINT": f"127.0.0.1:{port}" for name, port in self._ports.items()},
            "COLLECTOR_METRICS_HOST": "127.0.0.1",
            "COLLECTOR_METRICS_PORT": str(self._ports["COLLECTOR_METRICS"]),
            "AUDIT_QUEUE_DIR": str(self.queue_dir),
            "AUDIT_ARCHIVE_DIR": str(self.archive_dir),
            "AUDIT_LOGS_ENDPOINT": NOBODY_HTTP,
            "LOGS_ENDPOINT": NOBODY_HTTP,
            "METRICS_ENDPOINT": NOBODY_HTTP,
            "TRACES_ENDPOINT": NOBODY_GRPC,
            "JAEGER_ENDPOINT": NOBODY_GRPC,
            "TRACE_SAMPLING_PERCENTAGE": "100",
            "TRACE_DECISION_WAIT": "1s",
            "TRACE_METRICS_INTERVAL": "200ms",
            **(settings or {}),
        }

    @property
    def audit_endpoint(self) -> str:
        """OTLP/HTTP URL of the audit receiver."""
        return f"http://127.0.0.1:{self._ports['AUDIT_HTTP']}/v1/logs"

    @property
    def audit_grpc_endpoint(self) -> str:
        """OTLP/gRPC `host:port` of the audit receiver."""
        return f"127.0.0.1:{self._ports['AUDIT_GRPC']}"

    @property
    def grpc_endpoint(self) -> str:
        """OTLP/gRPC `host:port` for ordinary telemetry."""
        return f"127.0.0.1:{self._ports['OTLP_GRPC']}"

    @property
    def logs_endpoint(self) -> str:
        """OTLP/HTTP URL for ordinary logs, and for audit records that are sent astray."""
        return f"http://127.0.0.1:{self._ports['OTLP_HTTP']}/v1/logs"

    @property
    def traces_endpoint(self) -> str:
        """OTLP/HTTP URL for traces."""
        return f"http://127.0.0.1:{self._ports['OTLP_HTTP']}/v1/traces"

    @property
    def metric_points_endpoint(self) -> str:
        """OTLP/HTTP URL for ordinary metrics."""
        return f"http://127.0.0.1:{self._ports['OTLP_HTTP']}/v1/metrics"

    @property
    def metrics_endpoint(self) -> str:
        """URL of the collector's own metrics, Prometheus text."""
        return f"http://127.0.0.1:{self._ports['COLLECTOR_METRICS']}/metrics"

    def own_metrics(self) -> set[str]:
        """Returns the names of the collector's own series, as a scrape finds them now."""
        return {name for name, _, _ in self._series()}

    def own_metric(self, name: str, **labels: str) -> float:
        """Returns the sum over the collector's own series of this name that carry these labels; 0 for none."""
        return sum(value for found, at, value in self._series() if found == name and labels.items() <= at.items())

    def command(self) -> Sequence[str | Path]:
        """Returns the command line; without the binary it skips the test, or fails it where `CI` is set."""
        return [require_collector(), *(f"--config={path}" for path in self._configs)]

    def settings(self) -> Mapping[str, str]:
        """Returns the environment."""
        return self._settings

    def health_url(self) -> str:
        """Returns the URL that answers 200 when all pipelines run."""
        return f"http://127.0.0.1:{self._ports['HEALTH']}/"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A test that failed must not be hidden by a collector that does not end; one that passed must not hide it.
        if error is None:
            self.stop()
        else:
            self.kill()

    def stop(self) -> None:
        """Ends the collector with SIGTERM; does nothing when it has ended already.

        Raises:
            ServerError: It had to be killed, after 45 s (an export under way is waited for, up to 30 s).
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(45)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ServerError(f"SIGTERM did not end the collector in 45 s\n{self._log_tail()}") from error
        self._process = None

    def restart(self) -> None:
        """Starts the collector again, after SIGTERM if it still runs, on the same ports and folders."""
        self.stop()
        self.start()

    def _series(self) -> list[tuple[str, dict[str, str], float]]:
        # By hand, because prometheus_client's parser renames counters that do not end in `_total`.
        with urllib.request.urlopen(self.metrics_endpoint, timeout=10) as answer:
            text = str(answer.read(), "utf-8")
        return [(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SERIES.findall(text)]
