"""Finds record bodies in what log backends export: JSON objects that carry one under some usual key.

Known are the answers and line formats of Loki and logcli, VictoriaLogs, Elasticsearch and OpenSearch, ClickHouse,
Splunk, CloudWatch, OCSF, and this service's own API. What else a backend says of a record is not compared: it renames
and retypes attributes. Only a signature is, which no renaming changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from telemetry import names
from telemetry.audit.verify.read.found import Found, SourcePlace
from telemetry.audit.verify.read.json_types import is_list, is_object

KEYS: Final = (
    "_msg",
    "body",
    "body.text",
    "Body",
    "message",
    "Message",
    "msg",
    "log",
    "line",
    "_raw",
    "text",
    "content",
    "textPayload",
    "event.original",
    "raw_data",
)
"""Keys under which backends keep the text of a log record, by preference."""

_TEXTS: Final = ("text", "stringValue", "string_value")
_SOURCES: Final = ("_source", "fields", "result")
_ENVELOPES: Final = frozenset({"hits", "data", "streams", "records", "events", "results", "rows"})
_VALUES: Final = "values"
_STREAM: Final = "stream"
_SIGNATURES: Final = (names.AUDIT_INTEGRITY_VALUE, names.AUDIT_INTEGRITY_VALUE.replace(".", "_"))
_MAX_DEPTH: Final = 8


def is_export(value: Mapping[str, object]) -> bool:
    """Tell whether a JSON object is no body but something that carries bodies, or is empty of them."""
    attributes = value.get("attributes")
    if is_object(attributes) and names.AUDIT_RECORD_ID in attributes and _text(value) is None:
        return False
    return bool(_ENVELOPES & value.keys()) or next(_found(value, SourcePlace("", 0), None, 0), None) is not None


def records_in(value: object, place: SourcePlace) -> Iterator[Found]:
    """Yield the records that a decoded export holds, in their order, each with the signature beside it if any."""
    yield from _found(value, place, None, 0)


def _found(value: object, place: SourcePlace, signature: str | None, depth: int) -> Iterator[Found]:
    if depth > _MAX_DEPTH:
        return
    if is_list(value):
        for member in value:
            yield from _found(member, place, signature, depth + 1)
    elif is_object(value):
        own = _signature(value) or signature
        text = _text(value)
        if text is not None:
            yield Found(text, None, place, exported_signature=own)
        elif is_list(value.get(_VALUES)) and _STREAM in value:
            yield from _loki(value, place)
        else:
            for key, member in value.items():
                if key in _ENVELOPES or key in _SOURCES:
                    yield from _found(member, place, own, depth + 1)


def _loki(stream: Mapping[str, object], place: SourcePlace) -> Iterator[Found]:
    """Yield the lines of a stream of Loki: `[time, line]`, or `[time, line, structured metadata]`."""
    labels = stream.get(_STREAM)
    of_stream = _signature(labels) if is_object(labels) else None
    values = stream.get(_VALUES)
    for entry in values if is_list(values) else ():
        line = entry[1] if is_list(entry) and len(entry) > 1 else None
        if is_list(entry) and isinstance(line, str):
            metadata = entry[2] if len(entry) > 2 else None
            own = _signature(metadata) if is_object(metadata) else None
            yield Found(line, None, place, exported_signature=own or of_stream)


def _text(value: Mapping[str, object]) -> str | None:
    """Return the text that an object carries under the first usual key that has one."""
    texts = [text for key in KEYS if (text := _as_text(value.get(key))) is not None]
    # Beside a body some backends keep a message of their own.
    return next((text for text in texts if text.lstrip().startswith("{")), texts[0] if texts else None)


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if is_object(value):
        return next((text for key in _TEXTS if isinstance(text := value.get(key), str)), None)
    # Elasticsearch answers `fields` as lists.
    if is_list(value) and len(value) == 1:
        return _as_text(value[0])
    return None


def _signature(value: Mapping[str, object]) -> str | None:
    """Return the signature among the attributes of an object, wherever the backend put them."""
    return _signature_in(value) or next(
        (found for member in value.values() if is_object(member) and (found := _signature_in(member))), None
    )


def _signature_in(attributes: Mapping[str, object]) -> str | None:
    flat: Sequence[object] = [attributes.get(key) for key in _SIGNATURES]
    nested: object = attributes
    for part in names.AUDIT_INTEGRITY_VALUE.split("."):
        nested = nested.get(part) if is_object(nested) else None
    return next((_as_text(value) for value in (*flat, nested) if _as_text(value)), None)
