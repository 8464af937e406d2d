"""Reads receipts from files, in whatever answer of the API they stand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from service.errors import SettingsError
from telemetry.audit.verify import Receipt

_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_MEMBERS: Final = frozenset({"record_id", "stream_id", "sequence_number", "record_hash"})


def read_receipts(paths: Sequence[Path]) -> list[Receipt]:
    """Return the receipts in files: JSON documents, or one to a line, that hold any number of them anywhere.

    Raises:
        SettingsError: a file cannot be read, is not JSON or holds no receipt; all such files at once.
    """
    receipts: list[Receipt] = []
    problems: list[str] = []
    for path in paths:
        try:
            found = list(_receipts_in(path.read_bytes()))
        except OSError as error:
            problems.append(f"the receipt {path} cannot be read: {error.strerror}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"the receipt {path} is not JSON as the API answers it: {error}")
        else:
            receipts.extend(found)
            if not found:
                problems.append(f"{path} holds no receipt: a receipt has the members {', '.join(sorted(_MEMBERS))}")
    if problems:
        raise SettingsError(problems)
    return receipts


def _receipts_in(text: bytes) -> Iterator[Receipt]:
    for value in _documents(text):
        yield from _receipts_of(value)


def _documents(text: bytes) -> list[object]:
    try:
        return [_ANYTHING.decode(text)]
    except msgspec.DecodeError:
        lines = [line for line in text.split(b"\n") if line.strip()]
        if len(lines) == 1:
            raise
        return [_ANYTHING.decode(line) for line in lines]


def _receipts_of(value: object) -> Iterator[Receipt]:
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _receipts_of(member)
    elif isinstance(value, dict):
        members = cast("dict[str, object]", value)
        if members.keys() >= _MEMBERS:
            yield msgspec.convert(members, Receipt)
        else:
            yield from _receipts_of(list(members.values()))
