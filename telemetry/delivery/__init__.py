"""Delivers audit records to a sink: to a collector over OTLP, or to the embedded archive (docs/delivery.md)."""

from collections.abc import Callable

from telemetry.delivery.answers import Sink
from telemetry.delivery.http import HttpSink
from telemetry.delivery.settings import SinkSettings
from telemetry.otlp_settings import GRPC


def open_sink(settings: SinkSettings, clock: Callable[[], int]) -> Sink:
    """Open the sink that the settings describe. Nothing is sent yet, so the sink need not be reachable.

    Raises:
        TelemetrySettingsError: a certificate, key or token cannot be used.
    """
    if settings.protocol == GRPC:
        # Imported here, because the import of gRPC takes longer than the start of a command.
        from telemetry.delivery.grpc import GrpcSink

        return GrpcSink(settings)
    return HttpSink(settings, clock)
