"""The OpenTelemetry providers of one process: made from the standard `OTEL_*` variables, shut down within a time limit.

Nothing is made global. Code that needs the tracer or the instruments gets them as arguments.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from prometheus_client import CollectorRegistry, Info, generate_latest

from telemetry import names
from telemetry.errors import TelemetrySettingsError
from telemetry.exporters import log_exporters, metric_exporters, span_exporters
from telemetry.instruments import Instruments
from telemetry.logs import LogOutput
from telemetry.otel_settings import OtelSettings, read_otel_settings

_log = logging.getLogger(__name__)

SCOPE_NAME: Final = "auditrace"
SERVICE_NAME: Final = "auditrace"
SHUTDOWN_S: Final = 5.0
COMMAND_SHUTDOWN_S: Final = 1.0

# Metrics are scraped without a credential. Other attributes stay out: they may name hosts, addresses, command lines.
_SCRAPED_RESOURCE: Final = ("service.", "deployment.environment.", "telemetry.sdk.")

_SAMPLERS: Final[Mapping[str, Callable[[float], Sampler]]] = {
    "always_on": lambda _: ALWAYS_ON,
    "always_off": lambda _: ALWAYS_OFF,
    "traceidratio": TraceIdRatioBased,
    "parentbased_always_on": lambda _: ParentBased(ALWAYS_ON),
    "parentbased_always_off": lambda _: ParentBased(ALWAYS_OFF),
    "parentbased_traceidratio": ParentBasedTraceIdRatio,
}


class Telemetry:
    """Tracer, instruments and log output of one process.

    `audit_resource` describes the process on audit records, and names the key that signs.
    """

    def __init__(
        self, settings: OtelSettings, resource: Resource, *, version: str, certificate: str, is_daemon: bool
    ) -> None:
        integrity = {names.AUDIT_INTEGRITY_ALGORITHM: "EdDSA", names.AUDIT_INTEGRITY_CERTIFICATE: certificate}
        self.audit_resource = resource.merge(Resource(integrity))
        self._registry = CollectorRegistry()
        self._rendering = threading.Lock()
        self._shutdown_s = SHUTDOWN_S if is_daemon else COMMAND_SHUTDOWN_S
        self._closing = threading.Lock()
        self._is_closed = False
        tracing = _tracing(settings, resource)
        metering = _metering(settings, resource, self._registry)
        logs = _logging(settings, resource)
        self.tracer = tracing.get_tracer(SCOPE_NAME, version)
        self.instruments = Instruments(metering.get_meter(SCOPE_NAME, version))
        self._providers: list[Callable[[], object]] = [tracing.shutdown, metering.shutdown]
        self._output = LogOutput(lambda: sys.stderr, is_daemon=is_daemon)
        if logs is not None:
            self._providers.append(logs.shutdown)
            self._output.export(logs)

    def render_metrics(self) -> bytes:
        """Return all metrics in the Prometheus text format; from any thread."""
        # The collector of the reader mixes two collections up when they run at the same time.
        with self._rendering:
            return generate_latest(self._registry)

    def shutdown(self, within_s: float | None = None) -> None:
        """Flush and end everything in at most five seconds (commands: one second); what is not sent by then is dropped.

        Never raises. A second call does nothing.

        Args:
            within_s: a limit in seconds that is used when it is shorter.
        """
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._output.stop_exporting()
        shutdown_s = self._shutdown_s if within_s is None else min(self._shutdown_s, within_s)
        deadline = time.monotonic() + shutdown_s
        # Each provider gets its own thread, because a provider waits for its exporter, and this for its collector.
        threads = [threading.Thread(target=_quietly, args=[shutdown], daemon=True) for shutdown in self._providers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.instruments.stop_observing()
        if any(thread.is_alive() for thread in threads):
            # The log output stays, because exporters may still log.
            _log.warning("telemetry that could not be sent within %.1f seconds was dropped", shutdown_s)
            return
        self._output.close()


def set_up(
    environment: Mapping[str, str], *, instance_id: str, version: str, certificate: str, is_daemon: bool
) -> Telemetry:
    """Set up telemetry as the standard `OTEL_*` variables ask. Without any of them, nothing leaves the process.

    Args:
        environment: the environment of the process; the SDK reads the same variables itself.
        instance_id: names this process.
        version: the version of the package.
        certificate: the fingerprint of the key that signs checkpoints.
        is_daemon: True for a long-running process, which logs JSON lines; False for a command, which logs for people.

    Raises:
        TelemetrySettingsError: lists every variable that is wrong; nothing was set up.
    """
    settings = read_otel_settings(environment)
    resource = Resource.create(
        {
            names.SERVICE_NAME: SERVICE_NAME,
            names.SERVICE_VERSION: version,
            names.SERVICE_INSTANCE_ID: instance_id,
            **settings.resource,
        }
    )
    try:
        return Telemetry(settings, resource, version=version, certificate=certificate, is_daemon=is_daemon)
    except ValueError as error:
        raise TelemetrySettingsError(f"the OTEL_* settings do not fit together: {error}") from error


def _tracing(settings: OtelSettings, resource: Resource) -> TracerProvider:
    sampler = _SAMPLERS[settings.sampler](settings.sampler_ratio)
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    for exporter in span_exporters(settings.traces):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _metering(settings: OtelSettings, resource: Resource, registry: CollectorRegistry) -> MeterProvider:
    readers = [PeriodicExportingMetricReader(exporter) for exporter in metric_exporters(settings.metrics)]
    scraped = PrometheusMetricReader(registry=registry, scope_info_enabled=False, disable_target_info=True)
    shown = {name: value for name, value in resource.attributes.items() if name.startswith(_SCRAPED_RESOURCE)}
    target = Info("target", "Target metadata", registry=registry)
    target.info({name.replace(".", "_"): str(value) for name, value in shown.items()})
    return MeterProvider([scraped, *readers], resource, shutdown_on_exit=False)


def _logging(settings: OtelSettings, resource: Resource) -> LoggerProvider | None:
    exporters = log_exporters(settings.logs)
    if not exporters:
        return None
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return provider


def _quietly(shutdown: Callable[[], object]) -> None:
    try:
        shutdown()
    except Exception:  # noqa: BLE001 - exporters are foreign code, and their errors must not break the end of the process
        _log.warning("telemetry could not be shut down", exc_info=True)
