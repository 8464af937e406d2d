"""Reads what the collector's file exporter wrote, independently of the verifier, as the messages that were sent."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.support.otlp_messages import ReceivedLog, log_records_of

_BEGIN = re.compile(rb'\{"resourceLogs":')


def archived(folder: Path) -> list[ReceivedLog]:
    """Returns the log records of every line of every file of an archive folder; rotated files come first.

    Raises:
        ValueError: A line does not end with OTLP JSON.
    """
    # A rotated name has a `-` where the current one has its `.`, and so sorts before it.
    files = sorted(folder.glob("*.jsonl"))
    # Not splitlines(): a body may hold U+2028 as it is.
    lines = [line for file in files for line in file.read_bytes().split(b"\n") if line]
    return log_records_of([message_of(decoded) for line in lines for decoded in _requests(line)])


def _requests(line: bytes) -> Iterator[dict[str, Any]]:
    """Yields the requests of a line: one, unless the collector was killed before it had written the newline.

    Then the next one follows on the same line, and what was cut short before it is none.
    """
    *before, last = _BEGIN.split(line)[1:]
    for begun in before:
        try:
            yield json.loads(b'{"resourceLogs":' + begun)
        except ValueError:
            continue
    yield json.loads(b'{"resourceLogs":' + last)


def message_of(decoded: dict[str, Any]) -> ExportLogsServiceRequest:
    """Returns a line of OTLP JSON, decoded, as the message that it stands for; the argument is used up."""
    for resource in decoded["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                # OTLP JSON has the ids in hex, protobuf's own JSON in base64.
                for member in ("traceId", "spanId"):
                    if member in record:
                        record[member] = base64.b64encode(bytes.fromhex(record[member])).decode()
    return ParseDict(decoded, ExportLogsServiceRequest())
