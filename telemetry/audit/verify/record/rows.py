"""What the verification keeps of each record until all are read: one short row of bytes, whatever the body's size.

Rows of all streams sort as plain bytes do, by stream, then number, then record hash, so that they can be sorted on
disk (`spill.py`). A row names record ids and streams by keys of 16 bytes.
"""

import functools
import hashlib
import re
import struct
from typing import Final, NamedTuple

from telemetry.audit.verify.findings import Fault, UnplacedFinding

_FORM: Final = struct.Struct(">16sQ32s16s32s16sqBII")
_ID_FORM: Final = struct.Struct(">16s32s16sQBII")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INT64_MAX: Final = 2**63 - 1

KEY_BYTES: Final = 16
"""The keys of record ids and streams."""
ROW_BYTES: Final = _FORM.size
ID_ROW_BYTES: Final = _ID_FORM.size

STREAM: Final = slice(0, 16)
NUMBER: Final = slice(16, 24)
PLACE_IN_LEDGER: Final = slice(0, 24)
"""Stream and number."""
IDENTITY: Final = slice(0, 56)
"""Stream, number and record hash: what copies of one record have in common."""
DIGEST: Final = slice(24, 56)
HERE: Final = slice(24, 72)
"""Hash and id: what the next record is to name."""
BEFORE: Final = slice(72, 120)
"""Hash and id that the record names for the one before it, zeros for what it does not name."""

_ID: Final = slice(56, 72)
_SHOWN: Final = slice(128, 137)

CHECKPOINT: Final = 1
CLOSE: Final = 2
HAS_PREV_HASH: Final = 4
HAS_PREV_ID: Final = 8
UNOBSERVED: Final = 16
ODD_ID: Final = 32
"""The record id is not a UUID in its usual form: its key does not tell its text."""

NO_KEY: Final = bytes(KEY_BYTES)
"""Stands for an id that is not there."""
UNMATCHED: Final = bytes(32)
"""Stands for a hash that no record has, or that is not there."""


class CopyRow(NamedTuple):
    """One copy of a record: its place in the chain, what it says about the record before, and where it was found.

    `source` counts the sources of the copy in their order; `line` counts from 1 within it.
    """

    stream: bytes
    number: int
    digest: bytes
    record: bytes
    prev_digest: bytes
    prev_record: bytes
    observed: int
    flags: int
    source: int
    line: int

    def is_(self, flag: int) -> bool:
        """Tell whether `flag` is set."""
        return bool(self.flags & flag)


class IdRow(NamedTuple):
    """One copy of a record, by its record id."""

    record: bytes
    digest: bytes
    stream: bytes
    number: int
    flags: int
    source: int
    line: int


pack = _FORM.pack
"""Packs the fields of a `CopyRow`."""


def unpack(packed: bytes) -> CopyRow:
    """Return the fields of a packed row."""
    return CopyRow(*_FORM.unpack(packed))


def number_of(row: bytes) -> int:
    """Return the number in the stream, of a packed row or the beginning of one."""
    return int.from_bytes(row[NUMBER], "big")


def id_row_of(row: bytes) -> bytes:
    """Return the packed `IdRow` of a packed row."""
    return row[_ID] + row[DIGEST] + row[PLACE_IN_LEDGER] + row[_SHOWN]


def unpack_id_row(packed: bytes) -> IdRow:
    """Return the fields of a packed row of record ids."""
    return IdRow(*_ID_FORM.unpack(packed))


@functools.lru_cache(maxsize=4096)
def key_of(text: str) -> tuple[bytes, bool]:
    """Return the key of a record id or stream, and whether it is odd: `uuid_of` does not give its text back then."""
    if _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", "")), False
    # A digest, so that nobody can choose a text that has the key of another.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:KEY_BYTES], True


def uuid_of(key: bytes) -> str:
    """Return the UUID that a key stands for if it is not odd."""
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def noted_at(fault: Fault, stream_id: str, row: CopyRow | IdRow) -> UnplacedFinding:
    """Return a finding on the record of a row."""
    is_odd = bool(row.flags & ODD_ID)
    return UnplacedFinding(
        fault,
        stream_id,
        row.number,
        record_id=None if is_odd else uuid_of(row.record),
        record_key=row.record if is_odd else None,
        at=(row.source, row.line),
    )


def digest_of(hexadecimal: object) -> bytes:
    """Return the hash that a record names, or one that no record has."""
    try:
        digest = bytes.fromhex(hexadecimal) if isinstance(hexadecimal, str) else UNMATCHED
    except ValueError:
        return UNMATCHED
    return digest if len(digest) == len(UNMATCHED) and digest.hex() == hexadecimal else UNMATCHED


def bounded(nanoseconds: int | None) -> int:
    """Return a time as a row can hold it."""
    if nanoseconds is not None and -_INT64_MAX <= nanoseconds <= _INT64_MAX:
        return nanoseconds
    return max(-_INT64_MAX, min(nanoseconds or 0, _INT64_MAX))
