"""Step 1 of the verification: reads records from files and folders, however they were rotated, compressed or torn."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from telemetry.audit.verify.read.exports import is_export, records_in
from telemetry.audit.verify.read.files import Part, lines_of, parts_of, rounds_of
from telemetry.audit.verify.read.found import Found, SourcePlace
from telemetry.audit.verify.read.json_types import is_object
from telemetry.audit.verify.read.otlp_json import records_of

_EXPORT: Final = b'{"resourceLogs":'
_BODY: Final = b'{"attributes":'
_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_VALUES: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"\s*")
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def read_copy(paths: Iterable[Path]) -> Iterator[Found]:
    """Yield every record of `paths`, in the order of the files' names.

    A folder stands for every file below it whose name does not begin with a dot. A file holds OTLP JSON lines, one
    body to a line, or what a log backend exported; plain, gzip or Zstandard, told by its first bytes, the collector's
    length-prefixed frames included. What was not written to its end is yielded as torn, and reading goes on at the
    next `{"resourceLogs":`, also within a line: that text cannot occur inside a JSON string.

    Raises:
        OSError: a file cannot be opened or read.
    """
    for files in rounds_of(list(paths)):
        for part in (part for file in files for part in parts_of(file)):
            for _, found in records_of_part(part):
                yield from found


def records_of_part(part: Part) -> Iterator[tuple[int, Iterable[Found]]]:
    """Yield the number of each line of a part, from 1, and the records in it.

    Raises:
        OSError: the file cannot be opened or read.
    """
    source = str(part.file.path)
    lines = lines_of(part)
    start = list(itertools.islice(lines, 2)) if part.start == 0 else []
    if _is_document(start):
        yield from _records_of_document([*start, *lines], source)
        return
    for number, line in enumerate(itertools.chain(start, lines), start=1):
        place = SourcePlace(source, number)
        yield number, [_torn(place)] if line is None else records_of_line(line, place)


def records_of_line(line: bytes, place: SourcePlace) -> Iterator[Found]:
    """Yield the records of one line of an archive or an export, which ends with a line feed if it is complete."""
    text = line.strip()
    if not text:
        return
    if text.startswith(_BODY) and line.endswith(b"\n") and _EXPORT not in text and b'"body":' not in text:
        yield _body(text, place)
        return
    for piece in _pieces(text):
        try:
            if piece.startswith(_EXPORT):
                yield from records_of(piece, place)
            else:
                yield from _records_of_value(piece, place)
        except _UNREADABLE:
            yield _torn(place)


def _records_of_value(piece: bytes, place: SourcePlace) -> Iterator[Found]:
    value: object = _ANYTHING.decode(piece)
    if is_object(value) and "resourceLogs" in value:
        yield from records_of(piece, place)
    elif is_object(value) and not is_export(value):
        yield _body(piece, place)
    else:
        found = list(records_in(value, place))
        is_empty = is_object(value) or value == []
        yield from found or ([] if is_empty else [_torn(place)])


def _is_document(start: Sequence[bytes | None]) -> bool:
    """Tell whether a file holds JSON whose lines make sense together only, as `jq` and `?pretty` write it."""
    first, second = [line or b"" for line in (*start, b"", b"")][:2]
    return first.strip() == b"[" or (first.strip() == b"{" and second[:1] in b' \t"')


def _records_of_document(lines: Sequence[bytes | None], source: str) -> Iterator[tuple[int, Iterable[Found]]]:
    text = b"".join(line or b"" for line in lines).decode(errors="replace")
    at = 0
    while (at := _end_of(_SPACE, text, at)) < len(text):
        place = SourcePlace(source, text.count("\n", 0, at) + 1)
        try:
            _, end = _VALUES.raw_decode(text, at)
            yield place.line, list(_records_of_value(text[at:end].encode(), place))
        except (ValueError, RecursionError):
            yield place.line, [_torn(place)]
            return
        at = end


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _torn(place: SourcePlace) -> Found:
    return Found(None, None, place, torn=True)


def _body(text: bytes, place: SourcePlace) -> Found:
    # Undecodable bytes become U+FFFD, with which no signed hash agrees.
    return Found(text.decode(errors="replace"), None, place)


def _pieces(text: bytes) -> Iterator[bytes]:
    start = 0
    while (following := text.find(_EXPORT, start + 1)) >= 0:
        yield text[start:following]
        start = following
    yield text[start:]
