"""The line of an archive is what protobuf's own JSON mapping makes of the request, with ids in hexadecimal digits."""

import base64
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from telemetry.audit.otlp import otlp_json
from tests.support.depth import examples

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_UNSIGNED = st.integers(0, 2**32 - 1) | st.just(0)
_TIMES = st.integers(0, 2**64 - 1) | st.just(0)
_LEAVES = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=_TEXT),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=4)),
)


def _nested(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    pairs = st.lists(st.builds(KeyValue, key=_TEXT, value=inner), max_size=3)
    return st.one_of(
        st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(inner, max_size=3))),
        st.builds(AnyValue, kvlist_value=st.builds(KeyValueList, values=pairs)),
    )


_VALUES = st.recursive(_LEAVES, _nested, max_leaves=6)
_ATTRIBUTES = st.lists(st.builds(KeyValue, key=_TEXT, value=_VALUES) | st.builds(KeyValue, key=_TEXT), max_size=4)
_RECORDS = st.builds(
    LogRecord,
    time_unix_nano=_TIMES,
    observed_time_unix_nano=_TIMES,
    severity_number=st.sampled_from([0, 9, 13, 17]),
    severity_text=_TEXT,
    body=st.none() | _VALUES,
    attributes=_ATTRIBUTES,
    dropped_attributes_count=_UNSIGNED,
    flags=_UNSIGNED,
    trace_id=st.just(b"") | st.binary(min_size=16, max_size=16),
    span_id=st.just(b"") | st.binary(min_size=8, max_size=8),
    event_name=_TEXT,
)
_SCOPES = st.none() | st.builds(InstrumentationScope, name=_TEXT, version=_TEXT, attributes=_ATTRIBUTES)
_SCOPE_LOGS = st.builds(ScopeLogs, scope=_SCOPES, log_records=st.lists(_RECORDS, max_size=3), schema_url=_TEXT)
_RESOURCES = st.none() | st.builds(Resource, attributes=_ATTRIBUTES, dropped_attributes_count=_UNSIGNED)
_RESOURCE_LOGS = st.builds(
    ResourceLogs, resource=_RESOURCES, scope_logs=st.lists(_SCOPE_LOGS, max_size=2), schema_url=_TEXT
)
_REQUESTS = st.builds(ExportLogsServiceRequest, resource_logs=st.lists(_RESOURCE_LOGS, max_size=2))


def _by_protobuf(request: ExportLogsServiceRequest) -> Any:
    decoded = MessageToDict(request, use_integers_for_enums=True)
    for resource_logs in decoded.get("resourceLogs", ()):
        for scope_logs in resource_logs.get("scopeLogs", ()):
            for record in scope_logs.get("logRecords", ()):
                for member in {"traceId", "spanId"} & record.keys():
                    record[member] = base64.b64decode(record[member]).hex()
    return decoded


@settings(max_examples=examples(300), deadline=None)
@given(_REQUESTS)
def test_a_line_is_what_protobuf_makes_of_the_request(request: ExportLogsServiceRequest) -> None:
    """For any request at all, also with values that audit records never hold, no member is missing or different."""
    assert msgspec.json.decode(otlp_json(request.SerializeToString())) == _by_protobuf(request)
