"""Tells by its beginning what a file holds that is no copy of the ledger, but could be taken for one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from telemetry.audit.verify.read.files import File, lines_of, parts_of, rounds_of
from telemetry.audit.verify.read.json_types import is_object
from telemetry.audit.verify.report_text import printable

_HEAD: Final = ("record_id", "stream_id", "sequence_number", "record_hash")
_CELLS: Final = re.compile(r"[,;\t]")
_TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv"})
_PROOF: Final = frozenset({"record", "checkpoint", "tip", "hashes"})
# Bodies hold no such text, as quotes are escaped in them: what holds none is not decoded, however large it is.
_OF_PROOF: Final = re.compile(rb'"(?:checkpoint|tip|hashes)"\s*:')
_COPIES_BEGIN: Final = (b'{"resourceLogs":', b'{"attributes":')
_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_SQLITE: Final = b"SQLite format 3\0"
_PROBLEM: Final = "urn:auditrace:problem:"
# Answers of the API to keep are far smaller; what is larger is not read as a whole.
_MOST_ANSWER_BYTES: Final = 1 << 20

Kind: TypeAlias = Literal["table", "database", "proof", "receipt", "problem", "page"]


class NoCopy(msgspec.Struct, frozen=True):
    """A file that is no copy of the ledger; `detail` is what an error of the API says."""

    path: Path
    kind: Kind
    detail: str = ""


def no_copies_in(paths: Iterable[Path]) -> Iterator[NoCopy]:
    """Yield the files of `paths` that are no copies, but could be taken for some.

    Tables (CSV) do not hold what was hashed; the others are databases, and single answers of the API.

    Raises:
        OSError: a file cannot be opened or read.
    """
    for file in chain.from_iterable(rounds_of(list(paths))):
        found = _no_copy(file)
        if found is not None:
            yield found


def proof_in(path: Path) -> bytes | None:
    """Return the text of a file that holds the proof of a record as the API answers it, whatever is wrong with it.

    None when it holds something else.

    Raises:
        OSError: the file cannot be opened or read.
    """
    if path.is_dir():
        return None
    for part in parts_of(File(path, may_vanish=False)):
        lines = lines_of(part)
        first = next(lines, None) or b""
        if first.startswith(_COPIES_BEGIN):
            return None
        # A document over several lines: what stands on the first alone is none.
        text = b"".join([first, *(line or b"" for line in lines)]) if first.strip() == b"{" else first
        return text if _OF_PROOF.search(text) is not None and _is_proof(_object(text)) else None
    return None


def _no_copy(file: File) -> NoCopy | None:
    for part in parts_of(file):
        first = next(lines_of(part), None) or b""
        if first.startswith(_SQLITE):
            return NoCopy(file.path, "database")
        if _is_table(file.path, first):
            return NoCopy(file.path, "table")
        if part.packing == "plain" and part.size_bytes <= _MOST_ANSWER_BYTES and not first.startswith(_COPIES_BEGIN):
            return _answer(file.path, _object(b"".join(line or b"" for line in lines_of(part))))
        return None
    return None


def _answer(path: Path, value: Mapping[str, object]) -> NoCopy | None:
    """Return what a file is that is one answer of the API and no copy; None of anything else."""
    receipt = value.get("audit", value)
    if is_object(receipt) and receipt.keys() >= set(_HEAD) and "body" not in value:
        return NoCopy(path, "receipt")
    if str(value.get("type")).startswith(_PROBLEM) or "audit_record_id" in value:
        return NoCopy(path, "problem", f": {printable(str(value['detail']))}" if "detail" in value else "")
    if "next_cursor" in value:
        return NoCopy(path, "page")
    return NoCopy(path, "proof") if _is_proof(value) else None


def _object(text: bytes) -> Mapping[str, object]:
    """Return a JSON object; an empty one for anything else."""
    try:
        value: object = _ANYTHING.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return value if is_object(value) else {}


def _is_table(path: Path, line: bytes) -> bool:
    first = line.decode("utf-8-sig", errors="replace")
    cells = [cell.strip().strip('"') for cell in _CELLS.split(first)]
    is_named_so = not _TABLE_SUFFIXES.isdisjoint(path.suffixes)
    return tuple(cells[: len(_HEAD)]) == _HEAD or (is_named_so and not first.lstrip().startswith(("{", "[")))


def _is_proof(value: Mapping[str, object]) -> bool:
    # One that lost a member is still one, to say so.
    return "record" in value and len(_PROOF & value.keys()) > 1
