"""Frames stored records as requests, their bytes unchanged, each small enough for what becomes of it in an archive."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, Protocol, TypeVar

from telemetry.audit.otlp import resource_logs_bytes

MAX_LINE_BYTES: Final = 1 << 20
"""The longest line, line feed included, that the collector's reader of archives takes; it leaves out longer ones."""

# Bounds of what JSON adds to the bytes of a message. Of its three to four bytes below 0x20 (tags and lengths) an
# attribute has members and braces of at most 49 characters to show; such a byte within a text becomes an escape of six.
_PER_CONTROL: Final = 14
_PER_RECORD: Final = 320
_PER_FRAME: Final = 160
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x100) if byte not in b'"\\')
"""What JSON has as it is."""


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


S = TypeVar("S", bound=Stored)


def export_request(records: Iterable[Stored]) -> bytes:
    """Return records, in their order, as a serialized `ExportLogsServiceRequest`.

    Neighbours of the same resource and scope share one frame.
    """
    groups = groupby(records, key=lambda record: (record.resource, record.scope))
    return b"".join(
        resource_logs_bytes(resource, scope, [record.log_record for record in group])
        for (resource, scope), group in groups
    )


def in_lines(records: Sequence[S], max_bytes: int = MAX_LINE_BYTES) -> Sequence[Sequence[S]]:
    """Return records, in their order, in parts that each make a line of OTLP JSON of at most `max_bytes`.

    An archive, embedded or the collector's, holds a line for each request. Only a record that is larger by itself
    makes a longer line.
    """
    parts: list[list[S]] = []
    size, around = max_bytes, 0
    frame: tuple[bytes, bytes] | None = None
    for record in records:
        added = _PER_RECORD + _json_bytes(record.log_record)
        if frame != (record.resource, record.scope):
            frame = (record.resource, record.scope)
            around = _PER_FRAME + sum(map(_json_bytes, frame))
            size += around
        size += added
        if size > max_bytes:
            parts.append([])
            size = around + added
        parts[-1].append(record)
    return parts


def _json_bytes(message: bytes) -> int:
    """Return how many bytes a message takes as OTLP JSON, at most."""
    special = message.translate(None, _PLAIN)
    escaped = special.count(b'"') + special.count(b"\\")
    return len(message) + escaped + _PER_CONTROL * (len(special) - escaped)
