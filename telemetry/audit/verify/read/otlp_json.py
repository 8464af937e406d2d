"""Turns one line of OTLP JSON into the records it holds.

Source: OTLP 1.x, JSON Protobuf encoding (ids in hex, 64-bit integers as text); docs/audit-format.md, section 3.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from telemetry.audit.verify.read.found import Fields, Found, Index, SourcePlace

_Integer64: TypeAlias = int | str

_INT64_MAX: Final = 2**63 - 1
_MAX_DIGITS: Final = 19
_NEGATIVE: Final = re.compile("-[0-9]{1,19}")


class _AnyValue(msgspec.Struct, frozen=True, rename="camel", gc=False):
    string_value: str | None = None
    int_value: _Integer64 | None = None
    bool_value: bool | None = None
    array_value: "_Array | None" = None
    kvlist_value: "_Members | None" = None


class _KeyValue(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: _AnyValue = _AnyValue()


class _Array(msgspec.Struct, frozen=True, gc=False):
    values: tuple[_AnyValue, ...] = ()


class _Members(msgspec.Struct, frozen=True, gc=False):
    values: tuple[_KeyValue, ...] = ()


class _LogRecord(msgspec.Struct, frozen=True, rename="camel", gc=False):
    time_unix_nano: _Integer64 = 0
    observed_time_unix_nano: _Integer64 = 0
    severity_number: _Integer64 = 0
    event_name: str = ""
    body: _AnyValue | None = None
    # Not decoded with the line: most are only compared, as texts.
    attributes: msgspec.Raw = msgspec.Raw(b"[]")
    flags: int | None = None
    trace_id: str = ""
    span_id: str = ""


class _ScopeLogs(msgspec.Struct, frozen=True, rename="camel", gc=False):
    log_records: tuple[_LogRecord, ...] = ()


class _Resource(msgspec.Struct, frozen=True, gc=False):
    attributes: tuple[_KeyValue, ...] = ()


class _ResourceLogs(msgspec.Struct, frozen=True, rename="camel", gc=False):
    # Not decoded with the line: all lines of one process have the same.
    resource: msgspec.Raw = msgspec.Raw(b"{}")
    scope_logs: tuple[_ScopeLogs, ...] = ()


class _Export(msgspec.Struct, frozen=True, rename="camel", gc=False):
    resource_logs: tuple[_ResourceLogs, ...]


_DECODER = msgspec.json.Decoder(_Export)
_RESOURCE = msgspec.json.Decoder(_Resource)
_VALUE = msgspec.json.Decoder(_AnyValue)
_PAIRS = msgspec.json.Decoder(tuple[_KeyValue, ...])


class EncodedFields(Mapping[str, object]):
    """The attributes of a log record as the line has them, decoded when one of them is read."""

    __slots__ = ("_fields", "encoded")

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self._fields: dict[str, object] | None = None

    @property
    def is_decoded(self) -> bool:
        """Tell whether they were decoded."""
        return self._fields is not None

    def __getitem__(self, key: str) -> object:
        """Return the value of a key."""
        return self.decoded()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self.decoded())

    def __len__(self) -> int:
        """Return how many keys there are; attributes that are none at all count as one that says nothing."""
        return len(self.decoded())

    def decoded(self) -> dict[str, object]:
        """Return the attributes, decoded once; they are not to be changed."""
        if self._fields is None:
            try:
                self._fields = _fields(_PAIRS.decode(self.encoded))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                self._fields = {"": None}
        return self._fields


def value_of(encoded: bytes) -> object:
    """Return what one value says: dict, list, str, int, bool, or None for anything else.

    Raises:
        msgspec.DecodeError: `encoded` is not a value of OTLP JSON.
        RecursionError: it is nested too deeply to be one.
        UnicodeDecodeError: it is not UTF-8.
    """
    return _value(_VALUE.decode(encoded))


def records_of(line: bytes, place: SourcePlace) -> list[Found]:
    """Return the records of one `ExportLogsServiceRequest` in OTLP JSON.

    Raises:
        msgspec.DecodeError: `line` is not one.
        RecursionError: `line` is nested too deeply to be one.
        UnicodeDecodeError: `line` is not UTF-8.
    """
    found: list[Found] = []
    for resource_logs in _DECODER.decode(line).resource_logs:
        resource = _resource(bytes(resource_logs.resource))
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                body = None if record.body is None else record.body.string_value
                found.append(Found(body, _index(record, resource), place))
    return found


@functools.lru_cache(maxsize=16)
def _resource(encoded: bytes) -> Fields:
    return _fields(_RESOURCE.decode(encoded).attributes)


def _index(record: _LogRecord, resource: Fields) -> Index:
    return Index(
        EncodedFields(bytes(record.attributes)),
        resource,
        record.trace_id,
        record.span_id,
        record.flags,
        _integer(record.time_unix_nano),
        _integer(record.observed_time_unix_nano),
        record.event_name,
        _integer(record.severity_number),
    )


def _fields(pairs: Sequence[_KeyValue]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for pair in pairs:
        # Most values are texts: they are told apart here, without a call.
        text = pair.value.string_value
        fields[pair.key] = _value(pair.value) if text is None else text
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for pair in pairs:
            if pair.key in seen:
                fields[pair.key] = None
            seen.add(pair.key)
    return fields


def _value(value: _AnyValue) -> object:
    if value.string_value is not None:
        return value.string_value
    if value.kvlist_value is not None:
        return _fields(value.kvlist_value.values)
    if value.int_value is not None:
        return _integer(value.int_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.array_value is not None:
        return [_value(member) for member in value.array_value.values]
    return None


def _integer(value: _Integer64) -> int:
    """Return an integer; what is not one of 64 bits becomes -1, which no time, count or number of a record equals."""
    if isinstance(value, str):
        if len(value) <= _MAX_DIGITS and value.isdigit() and value.isascii():
            number = int(value)
        else:
            number = -int(value[1:]) if _NEGATIVE.fullmatch(value) else -1
    else:
        number = value
    return number if -_INT64_MAX <= number <= _INT64_MAX else -1
