"""Delivers audit records to a sink: to a collector over OTLP, or to the embedded archive (docs/delivery.md)."""

from collections.abc import Callable

from telemetry.delivery.answers import (
    Accepted,
    Answer,
    Refused,
    Rejected,
    Sink,
    Unreachable,
    blames_records,
)
from telemetry.delivery.archive import ArchiveSink, archived_in, examine_archive
from telemetry.delivery.http import HttpSink
from telemetry.delivery.settings import SinkSettings, sink_settings
from telemetry.otlp_settings import GRPC

__all__ = [
    "Accepted",
    "Answer",
    "ArchiveSink",
    "Refused",
    "Rejected",
    "Sink",
    "SinkSettings",
    "Unreachable",
    "archived_in",
    "blames_records",
    "examine_archive",
    "open_sink",
    "sink_settings",
]


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
