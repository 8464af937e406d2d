"""Reads receipts from files that hold answers of the API: answers to a change, or refusals."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from service.cli.arguments import require_none
from telemetry.audit.verify import KnownReceipt
from telemetry.files import read_given

_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_MEMBERS: Final = frozenset({"record_id", "stream_id", "sequence_number", "record_hash"})
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def read_receipts(paths: Sequence[Path]) -> list[KnownReceipt]:
    """Return the receipts in files. A file is one JSON document, or one a line; receipts may be anywhere in them.

    Raises:
        SettingsError: a file cannot be read, is not JSON, holds no receipt, holds a refusal without a receipt, or a
            receipt that no record can have; it lists all such files.
    """
    receipts: list[KnownReceipt] = []
    problems: list[str] = []
    for path in paths:
        try:
            objects = [one for document in _documents(read_given(path)) for one in _objects(document)]
            found = [msgspec.convert(one, KnownReceipt) for one in objects if one.keys() >= _MEMBERS]
            wrong = [receipt for receipt in found if not _can_be(receipt)]
            # Older versions answered a refusal with the id of its record, and without a receipt.
            without = [
                record_id
                for one in objects
                if isinstance(record_id := one.get("audit_record_id"), str) and not one.get("audit")
            ]
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
    require_none(problems)
    return receipts


def _documents(text: bytes) -> list[object]:
    try:
        return [_ANYTHING.decode(text)]
    except msgspec.DecodeError:
        lines = [line for line in text.split(b"\n") if line.strip()]
        if len(lines) == 1:
            raise
        return [_ANYTHING.decode(line) for line in lines]


def _objects(value: object) -> Iterator[dict[str, object]]:
    """Yield every object of a JSON document, outer ones first."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        yield members
        value = list(members.values())
    if isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _objects(member)


def _can_be(receipt: KnownReceipt) -> bool:
    """Return whether a record can have this id, place and hash. A receipt that no record can have proves nothing."""
    ids = (receipt.record_id, receipt.stream_id)
    return receipt.number > 0 and all(map(_UUID.fullmatch, ids)) and _SHA256.fullmatch(receipt.hash) is not None


def _shown(record_id: str) -> str:
    """Return an id with control characters escaped for the terminal, because a file may hold any text."""
    return record_id.encode("unicode_escape").decode()
