"""The OTLP bytes of sealed records: encoded once when a record is written, and framed without decoding for delivery.

Source: opentelemetry-proto logs/v1 and collector/logs/v1; protobuf encoding, "length-delimited records".
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from telemetry.audit.canonical import Value
from telemetry.audit.record import Result, SpanRef

_SEVERITY: Final = {Result.SUCCESS: 9, Result.NOOP: 9, Result.ERROR: 17}
_WARN: Final = 13


def severity_number(result: Result) -> int:
    """Return the OTLP severity of a result: 9 for the outcome `success`, 17 for `error`, 13 for all others."""
    return _SEVERITY.get(result, _WARN)


def any_value(value: Value) -> AnyValue:
    """Return `value` as an OTLP AnyValue of the same type."""
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    return AnyValue(array_value=ArrayValue(values=[any_value(member) for member in value]))


def key_values(attributes: Mapping[str, Value]) -> list[KeyValue]:
    """Return attributes as OTLP key-value pairs, in the same order."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def log_record_bytes(
    *,
    event_name: str,
    timestamp_ns: int,
    observed_ns: int,
    severity: int,
    span: SpanRef,
    body: str,
    attributes: Mapping[str, Value],
) -> bytes:
    """Return one record as a serialized `LogRecord` message."""
    return LogRecord(
        time_unix_nano=timestamp_ns,
        observed_time_unix_nano=observed_ns,
        severity_number=cast("Any", severity),
        body=AnyValue(string_value=body),
        attributes=key_values(attributes),
        flags=span.trace_flags,
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        event_name=event_name,
    ).SerializeToString()


def resource_bytes(attributes: Mapping[str, Value]) -> bytes:
    """Return resource attributes as a serialized `Resource` message."""
    return Resource(attributes=key_values(attributes)).SerializeToString()


def scope_bytes(name: str, version: str) -> bytes:
    """Return a serialized `InstrumentationScope` message."""
    return InstrumentationScope(name=name, version=version).SerializeToString()


def resource_logs_bytes(resource: bytes, scope: bytes, log_records: Iterable[bytes]) -> bytes:
    """Frame serialized records of one resource as part of an `ExportLogsServiceRequest`.

    The results for several resources may be concatenated, because a repeated field is the concatenation of its parts.
    """
    # Field numbers: ScopeLogs{1: scope, 2: log_records}, ResourceLogs{1: resource, 2: scope_logs}, request{1}.
    scope_logs = _field(1, scope) + b"".join(_field(2, record) for record in log_records)
    return _field(1, _field(1, resource) + _field(2, scope_logs))


def otlp_json(request: bytes) -> bytes:
    """Return a serialized `ExportLogsServiceRequest` as one line of OTLP JSON, in the form of the collector's exporter.

    Source: OTLP specification, "JSON Protobuf Encoding": ids in hex, enumerations as numbers, 64-bit integers as text.
    """
    message = ExportLogsServiceRequest.FromString(request)
    return msgspec.json.encode(_set({"resourceLogs": [_resource_logs_json(each) for each in message.resource_logs]}))


# The JSON mapping of protobuf takes three times as long, and this thread competes with clients' requests. So only rare
# parts use it. A property test shows that both mappings give the same text.


def _resource_logs_json(logs: ResourceLogs) -> dict[str, object]:
    return _set(
        {
            "resource": _json(logs.resource) if logs.HasField("resource") else None,
            "scopeLogs": [_scope_logs_json(each) for each in logs.scope_logs],
            "schemaUrl": logs.schema_url,
        }
    )


def _scope_logs_json(logs: ScopeLogs) -> dict[str, object]:
    return _set(
        {
            "scope": _json(logs.scope) if logs.HasField("scope") else None,
            "logRecords": [_log_record_json(each) for each in logs.log_records],
            "schemaUrl": logs.schema_url,
        }
    )


def _log_record_json(record: LogRecord) -> dict[str, object]:
    return _set(
        {
            "timeUnixNano": _integer_json(record.time_unix_nano),
            "severityNumber": int(record.severity_number),
            "severityText": record.severity_text,
            "body": _value_json(record.body) if record.HasField("body") else None,
            "attributes": [_pair_json(each) for each in record.attributes],
            "droppedAttributesCount": record.dropped_attributes_count,
            "flags": record.flags,
            "traceId": record.trace_id.hex(),
            "spanId": record.span_id.hex(),
            "observedTimeUnixNano": _integer_json(record.observed_time_unix_nano),
            "eventName": record.event_name,
        }
    )


def _pair_json(pair: KeyValue) -> dict[str, object]:
    if pair.key and pair.HasField("value"):
        return {"key": pair.key, "value": _value_json(pair.value)}
    return _json(pair)


def _value_json(value: AnyValue) -> dict[str, object]:
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": value.string_value}
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case _:
            return _json(value)


def _json(message: Message) -> dict[str, object]:
    return MessageToDict(message, use_integers_for_enums=True)


def _integer_json(value: int) -> str:
    return str(value) if value else ""


def _set(members: dict[str, object]) -> dict[str, object]:
    """Leave out members that are not set: zeros and empty values. A set message stays, also when it is empty."""
    return {key: value for key, value in members.items() if value or isinstance(value, dict)}


def _field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
