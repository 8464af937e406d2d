"""Turns a record as a database holds it, OTLP bytes and the text that is shown of it, into copies to verify.

Source: opentelemetry-proto logs/v1 and common/v1; docs/audit-format.md, section 3.
"""

import functools
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from telemetry.audit.verify.read.found import Fields, Found, Index, SourcePlace


def found_in_row(body: str, otlp: bytes, resource: bytes, place: SourcePlace) -> list[Found]:
    """Return what would be delivered of a record, and what is shown of it where that differs.

    Args:
        body: the text that is shown, and that queries see.
        otlp: the serialized LogRecord that is delivered.
        resource: the serialized Resource that is delivered with it.
        place: where the row was found.
    """
    try:
        record = LogRecord.FromString(otlp)
        delivered = Found(_text(record), _index(record, _resource(resource)), place)
    except DecodeError:
        delivered = Found(None, None, place)
    return [delivered] if delivered.body == body else [delivered, Found(body, None, place)]


def _text(record: LogRecord) -> str | None:
    return record.body.string_value if record.body.WhichOneof("value") == "string_value" else None


def _index(record: LogRecord, resource: Fields) -> Index:
    return Index(
        attributes=_fields(record.attributes),
        resource=resource,
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        # Protobuf does not tell 0 from what is not there.
        flags=record.flags or None,
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.observed_time_unix_nano,
        event_name=record.event_name,
        severity_number=record.severity_number,
    )


@functools.lru_cache(maxsize=16)
def _resource(encoded: bytes) -> Fields:
    return _fields(Resource.FromString(encoded).attributes)


def _fields(pairs: Iterable[KeyValue]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for pair in pairs:
        fields[pair.key] = None if pair.key in fields else _value(pair.value)
    return fields


def _value(value: AnyValue) -> object:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "bool_value":
            return value.bool_value
        case "array_value":
            return [_value(member) for member in value.array_value.values]
        case "kvlist_value":
            return _fields(value.kvlist_value.values)
        case _:
            return None
