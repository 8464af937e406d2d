"""Reads the answers of OTLP sinks: the response message, and how long the sender should wait.

Source: OTLP specification, "Partial Success" and "OTLP/HTTP Throttling"; RFC 9110, section 10.2.3.
"""

import json
import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, cast

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_MEMBERS: Final = frozenset({"partialSuccess", "partial_success"})

_SHOWN = 200
"""How many characters of a sink's message are kept."""


def answer_of(response: ExportLogsServiceResponse) -> Answer:
    """Return the answer of a response message. A message that rejects nothing is a success, its text a warning."""
    partial = response.partial_success
    if partial.rejected_log_records > 0:
        return Rejected(partial.rejected_log_records, shown(partial.error_message))
    return Accepted(shown(partial.error_message))


def answer_of_body(body: bytes, content_type: str) -> Answer:
    """Return the answer in the body of a 200. A body that is not OTLP, such as a web page, acknowledges nothing.

    An empty body is an empty protobuf message, which rejects nothing; proxies send it with any content type or none.
    JSON without the member of a response is no OTLP response: the health check of the collector sends it, at any path.

    Args:
        body: the body, decompressed.
        content_type: the header's value, empty when there was none.
    """
    if not body:
        return Accepted()
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type == JSON and _may_be_otlp(json.loads(body)):
            return answer_of(Parse(body, ExportLogsServiceResponse(), ignore_unknown_fields=True))
        if media_type == PROTOBUF:
            return answer_of(ExportLogsServiceResponse.FromString(body))
    except (DecodeError, ParseError, RecursionError, ValueError):
        media_type = f"a broken {media_type}"
    return Refused(0, "not_otlp", f"the answer is {media_type or 'of no type'}, not OTLP: is the URL right?")


def _may_be_otlp(value: object) -> bool:
    """Return whether a decoded body may be a response: it is empty, or has the member of a response."""
    return isinstance(value, dict) and (not value or not _MEMBERS.isdisjoint(cast("dict[str, object]", value)))


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, by a number or a date; None when it holds neither."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
    return max(0.0, seconds) if math.isfinite(seconds) else None


def shown(text: str) -> str:
    """Return a sink's message on one line, cut to a length that fits in a log line."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
