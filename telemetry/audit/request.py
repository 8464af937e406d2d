"""Frames stored records as requests. Their bytes are unchanged, and each request fits in one line of an archive."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, TypeVar

import msgspec

from telemetry.audit.otlp import resource_logs_bytes

MAX_LINE_BYTES: Final = 1 << 20
"""The longest line, with its line feed, that the collector's reader of archives accepts; others are skipped."""

# The most bytes that JSON adds to a message. An attribute has three to four bytes below 0x20 (tags and lengths). In
# JSON they become names and braces of at most 49 characters. In a text such a byte becomes an escape of six characters.
_PER_CONTROL: Final = 14
_PER_RECORD: Final = 320
_PER_FRAME: Final = 160
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x100) if byte not in b'"\\')
"""The bytes that JSON writes unchanged."""


class StoredBytes(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a stored record: a serialized `LogRecord`, `Resource` and `InstrumentationScope`."""

    log_record: bytes
    resource: bytes
    scope: bytes


S = TypeVar("S", bound=StoredBytes)


def export_request(records: Iterable[StoredBytes]) -> bytes:
    """Return records, in their order, as a serialized `ExportLogsServiceRequest`.

    Adjacent records of the same resource and scope share one frame.
    """
    groups = groupby(records, key=lambda record: (record.resource, record.scope))
    return b"".join(
        resource_logs_bytes(resource, scope, [record.log_record for record in group])
        for (resource, scope), group in groups
    )


def in_lines(records: Sequence[S], max_bytes: int = MAX_LINE_BYTES) -> Sequence[Sequence[S]]:
    """Return records, in their order, in parts; each part is a line of OTLP JSON of at most `max_bytes`.

    An archive, of the service or the collector, holds one line for each request. Only a single larger record makes a
    longer line.
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
    """Return the most bytes that a message needs as OTLP JSON."""
    special = message.translate(None, _PLAIN)
    escaped = special.count(b'"') + special.count(b"\\")
    return len(message) + escaped + _PER_CONTROL * (len(special) - escaped)
