"""Tells what a file holds by its beginning, for what is no copy of the ledger and yet is taken for one."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from telemetry.audit.verify.body import is_object
from telemetry.audit.verify.files import File, lines_of, parts_of, rounds_of

_HEAD: Final = ("record_id", "stream_id", "sequence_number", "record_hash")
_CELLS: Final = re.compile(r"[,;\t]")
_TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv"})
_PROOF: Final = frozenset({"record", "checkpoint", "tip", "hashes"})
# Bodies hold no such text, as quotes are escaped in them: what holds none is not decoded, however large it is.
_OF_PROOF: Final = re.compile(rb'"(?:checkpoint|tip|hashes)"\s*:')
_OF_ANSWER: Final = re.compile(rb'"(?:audit|audit_record_id|next_cursor|record_hash)"\s*:')
_COPIES_BEGIN: Final = (b'{"resourceLogs":', b'{"attributes":')
_ANYTHING: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


def tables_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of `paths` that are tables (CSV), which do not hold what was hashed.

    Raises:
        OSError: a file cannot be opened or read.
    """
    for file in chain.from_iterable(rounds_of(list(paths))):
        if _is_table(file):
            yield file.path


def proof_in(path: Path) -> bytes | None:
    """Return the text of a file that holds the proof of a record as the API answers it, whatever is wrong with it.

    None when it holds something else.

    Raises:
        OSError: the file cannot be opened or read.
    """
    text = _document_in(path)
    return text if text is not None and _is_proof(text) else None


def is_answer(path: Path) -> bool:
    """Tell whether a file holds another answer of the API: a receipt, a refusal, or a page of a listing.

    Raises:
        OSError: the file cannot be opened or read.
    """
    value = _decoded(_document_in(path) or b"", _OF_ANSWER)
    if not is_object(value) or "body" in value:
        return False
    receipt = value.get("audit", value)
    return "next_cursor" in value or "audit_record_id" in value or (is_object(receipt) and set(_HEAD) <= receipt.keys())


def _document_in(path: Path) -> bytes | None:
    """Return the text of what a file begins with: its first line, or all of it when that is a bracket alone.

    None of a folder, and of what is a copy by its beginning.
    """
    if path.is_dir():
        return None
    for part in parts_of(File(path, may_vanish=False)):
        lines = lines_of(part)
        first = next(lines, None) or b""
        if first.startswith(_COPIES_BEGIN):
            return None
        # A document over several lines: what stands on the first alone is none.
        return b"".join([first, *(line or b"" for line in lines)]) if first.strip() == b"{" else first
    return None


def _is_table(file: File) -> bool:
    for part in parts_of(file):
        first = (next(lines_of(part), None) or b"").decode("utf-8-sig", errors="replace")
        cells = [cell.strip().strip('"') for cell in _CELLS.split(first)]
        is_named_so = not _TABLE_SUFFIXES.isdisjoint(file.path.suffixes)
        return tuple(cells[: len(_HEAD)]) == _HEAD or (is_named_so and not first.lstrip().startswith(("{", "[")))
    return False


def _is_proof(text: bytes) -> bool:
    value = _decoded(text, _OF_PROOF)
    # One that lost a member is still one, to say so.
    return is_object(value) and "record" in value and len(_PROOF & value.keys()) > 1


def _decoded(text: bytes, begins_to_look_like: re.Pattern[bytes]) -> object:
    if begins_to_look_like.search(text) is None:
        return None
    try:
        value: object = _ANYTHING.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value
