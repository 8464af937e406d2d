"""Reads receipts from files, in whatever answer of the API they stand: of a change, or of a refusal."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from service.errors import SettingsError
from telemetry.audit.verify import KnownReceipt

_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_MEMBERS: Final = frozenset({"record_id", "stream_id", "sequence_number", "record_hash"})
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RECEIPT: Final = "audit"
_RECORD: Final = "audit_record_id"


def read_receipts(paths: Sequence[Path]) -> list[KnownReceipt]:
    """Return the receipts in files: JSON documents, or one to a line, that hold any number of them anywhere.

    Raises:
        SettingsError: a file cannot be read, is not JSON, or holds no receipt, a refusal without one, or one
            that no record can have; all such files at once.
    """
    receipts: list[KnownReceipt] = []
    problems: list[str] = []
    for path in paths:
        try:
            documents = _documents(path.read_bytes())
            found = [receipt for document in documents for receipt in _receipts_of(document)]
            wrong = [receipt for receipt in found if not _can_be(receipt)]
            without = [record_id for document in documents for record_id in _refusals_without(document)]
        except OSError as error:
            problems.append(f"the receipt {path} cannot be read: {error.strerror}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"the receipt {path} is not JSON as the API answers it: {error}")
        else:
            receipts.extend(found)
            problems.extend(
                f"{path} holds a receipt that no service gave: record {_shown(receipt.record_id)}, number "
                f"{receipt.number} of stream {_shown(receipt.stream_id)}, hash {_shown(receipt.hash)}"
                for receipt in wrong
            )
            problems.extend(
                f"{path} holds the refusal of an older version, which names its record and is no receipt: get "
                f"/v1/audit/records/{_shown(record_id)} from the service, and give that answer"
                for record_id in without
            )
            if not found and not without:
                problems.append(f"{path} holds no receipt: a receipt has the members {', '.join(sorted(_MEMBERS))}")
    if problems:
        raise SettingsError(problems)
    return receipts


def _documents(text: bytes) -> list[object]:
    try:
        return [_ANYTHING.decode(text)]
    except msgspec.DecodeError:
        lines = [line for line in text.split(b"\n") if line.strip()]
        if len(lines) == 1:
            raise
        return [_ANYTHING.decode(line) for line in lines]


def _receipts_of(value: object) -> Iterator[KnownReceipt]:
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _receipts_of(member)
    elif isinstance(value, dict):
        members = cast("dict[str, object]", value)
        if members.keys() >= _MEMBERS:
            yield msgspec.convert(members, KnownReceipt)
        else:
            yield from _receipts_of(list(members.values()))


def _can_be(receipt: KnownReceipt) -> bool:
    """Tell whether a record can have this id, place and hash: one that cannot is in no copy, and proves nothing."""
    ids = (receipt.record_id, receipt.stream_id)
    return receipt.number > 0 and all(map(_UUID.fullmatch, ids)) and _SHA256.fullmatch(receipt.hash) is not None


def _refusals_without(value: object) -> Iterator[str]:
    """Yield the record ids of refusals that carry no receipt."""
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _refusals_without(member)
    elif isinstance(value, dict):
        members = cast("dict[str, object]", value)
        record_id = members.get(_RECORD)
        if isinstance(record_id, str) and not members.get(_RECEIPT):
            yield record_id
        for member in members.values():
            yield from _refusals_without(member)


def _shown(record_id: str) -> str:
    """Return an id as a terminal shows it: a file may hold anything."""
    return record_id.encode("unicode_escape").decode()
