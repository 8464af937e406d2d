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
    if path.is_dir():
        return None
    for part in parts_of(File(path, may_vanish=False)):
        lines = lines_of(part)
        first = next(lines, None) or b""
        if first.startswith(_COPIES_BEGIN):
            return None
        # A document over several lines: what stands on the first alone is none.
        text = b"".join([first, *(line or b"" for line in lines)]) if first.strip() == b"{" else first
        return text if _is_proof(text) else None
    return None


def _is_table(file: File) -> bool:
    for part in parts_of(file):
        first = (next(lines_of(part), None) or b"").decode("utf-8-sig", errors="replace")
        cells = [cell.strip().strip('"') for cell in _CELLS.split(first)]
        is_named_so = not _TABLE_SUFFIXES.isdisjoint(file.path.suffixes)
        return tuple(cells[: len(_HEAD)]) == _HEAD or (is_named_so and not first.lstrip().startswith(("{", "[")))
    return False


def _is_proof(text: bytes) -> bool:
    if _OF_PROOF.search(text) is None:
        return False
    try:
        value: object = _ANYTHING.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    # One that lost a member is still one, to say so.
    return is_object(value) and "record" in value and len(_PROOF & value.keys()) > 1
