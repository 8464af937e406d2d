"""Carries a record, sound or not, as a copy holds one: as a body alone, in an archive line, as a stored row."""

import base64
import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from telemetry.audit.canonical import canonical_bytes, sha256_hex
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row
from telemetry.errors import CanonicalFormError
from tests.support.ledger_maker import Sealed, key_values, line_of

PLACE: Final = SourcePlace("mutated", 1)
_HASH: Final = "audit.integrity.hash"


class Draft:
    """A record on its way from the members of its body to what carries it."""

    def __init__(self, base: bytes) -> None:
        """Begin with a sound log record in JSON."""
        self.log_record: dict[str, Any] = msgspec.json.decode(base)
        self.text: str = self.log_record["body"]["stringValue"]
        self.body: dict[str, Any] = msgspec.json.decode(self.text)
        self.resource: dict[str, Any] = dict(self.body["resource"])

    def say(self, text: str) -> None:
        """Take another text as the body, with the hash of it and the index that goes with it, if there is one."""
        try:
            body: Any = json.loads(text)
            made = Sealed(body).log_record()
            self.resource = dict(body["resource"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CanonicalFormError):
            made = self.log_record
        known = made.get("attributes")
        pairs = [pair for pair in known if not _is_hash(pair)] if isinstance(known, list) else []
        self.text = text
        digest = sha256_hex(text.encode(errors="replace"))
        pairs.append({"key": _HASH, "value": {"stringValue": digest}})
        self.log_record = {**made, "body": {"stringValue": text}, "attributes": pairs}


def _is_hash(pair: Any) -> bool:
    return isinstance(pair, dict) and pair.get("key") == _HASH


class Row(NamedTuple):
    """A record as a database holds it: the text that is shown, and the messages that are delivered."""

    shown: str
    otlp: bytes
    resource: bytes


def carried(draw: Random, draft: Draft) -> Sequence[Found]:
    """Return what a reader makes of a record in one of its carriers."""
    carrier = draw.random()
    if carrier < 0.15:
        return read(draft.text)
    row = row_of(draft) if carrier < 0.25 else None
    return read(line_in(draw, draft)) if row is None else found_in_row(row.shown, row.otlp, row.resource, PLACE)


def encoded(draw: Random, body: dict[str, Any]) -> str:
    """Return the text of a body: canonical most of the time, or nearly."""
    style = draw.random()
    try:
        if style < 0.7:
            return canonical_bytes(body).decode()
    except (CanonicalFormError, RecursionError):
        pass
    # In the order of code points, which is nearly the canonical one.
    is_sorted, separators = style < 0.9, (",", ":") if style < 0.97 else (", ", ": ")
    try:
        return json.dumps(body, sort_keys=is_sorted, separators=separators, ensure_ascii=style > 0.95)
    except RecursionError:
        return "{}"


def dumped(draw: Random, value: Any) -> str:
    """Return JSON as collectors write it, most of the time, or in another way."""
    style = draw.random()
    if style < 0.8:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(value, ensure_ascii=style > 0.9, indent=None)


def line_in(draw: Random, draft: Draft, attributes: str | None = None) -> str:
    """Return a line of an archive, with a text in the place of the attributes if one is given."""
    log_record = draft.log_record if attributes is None else {**draft.log_record, "attributes": attributes}
    try:
        line = line_of(log_record, draft.resource)
        return line if draw.random() < 0.8 else dumped(draw, json.loads(line))
    except RecursionError:
        # Python writes less deep JSON than it reads.
        return draft.text


def row_of(draft: Draft) -> Row | None:
    """Return a record as a database holds it; None if Protobuf has no such message."""
    record, resource = dict(draft.log_record), {"attributes": key_values(draft.resource)}
    try:
        for name in {"traceId", "spanId"} & record.keys():
            record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()
        otlp = ParseDict(record, LogRecord(), ignore_unknown_fields=True).SerializeToString()
        return Row(draft.text, otlp, ParseDict(resource, Resource()).SerializeToString())
    except (ParseError, TypeError, ValueError, AttributeError, RecursionError, SystemError):
        # A SystemError is what Protobuf makes of half a surrogate pair in a name.
        return None


def flipped(draw: Random, data: bytes) -> bytes:
    """Return bytes of which a few are others, are missing, or were not there."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(changed)) if changed else 0
        match draw.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([changed[at] ^ 1 << draw.randrange(8)]) if changed else b"x"
            case 1:
                changed[at:at] = draw.randbytes(1)
            case 2:
                del changed[at : at + draw.randint(1, 9)]
            case _:
                changed[at : at + 1] = draw.randbytes(1)
    return bytes(changed)


def read(line: str) -> Sequence[Found]:
    """Return the records that a reader finds in a line."""
    return read_bytes(line.encode(errors="surrogatepass"))


def read_bytes(line: bytes) -> Sequence[Found]:
    """Return the records that a reader finds in a line, which need not be UTF-8."""
    return list(records_of_line(line + b"\n", PLACE))
