"""Frames stored records as one request, their bytes unchanged."""

from collections.abc import Iterable
from itertools import groupby
from typing import Protocol

from telemetry.audit.otlp import resource_logs_bytes


class Stored(Protocol):
    """A record as it was stored: three serialized messages."""

    @property
    def resource(self) -> bytes:
        """A `Resource`."""
        ...

    @property
    def scope(self) -> bytes:
        """An `InstrumentationScope`."""
        ...

    @property
    def log_record(self) -> bytes:
        """A `LogRecord`."""
        ...


def export_request(records: Iterable[Stored]) -> bytes:
    """Return records, in their order, as a serialized `ExportLogsServiceRequest`.

    Neighbours of the same resource and scope share one frame.
    """
    groups = groupby(records, key=lambda record: (record.resource, record.scope))
    return b"".join(
        resource_logs_bytes(resource, scope, [record.log_record for record in group])
        for (resource, scope), group in groups
    )
