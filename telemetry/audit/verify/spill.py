"""Sorts more rows of bytes than memory holds: in runs on disk, which are then read together in order."""

import heapq
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from telemetry.files import open_private

T = TypeVar("T")

_LENGTH: Final = struct.Struct(">I")
_RUN_BYTES: Final = 4 << 20
_MERGE_BYTES: Final = 4 << 20
_MIN_BLOCK_BYTES: Final = 8 << 10
_MAX_MERGED: Final = 256


class SortedRun(msgspec.Struct, frozen=True):
    """Sorted rows: a part of a file, or `held` in memory."""

    path: str = ""
    offset: int = 0
    size_bytes: int = 0
    held: list[bytes] = []


class Sorter:
    """Takes rows in any order; what does not fit in memory goes to a file of this sorter's own, as sorted runs."""

    def __init__(self, path: Path, row_bytes: int | None = None, run_bytes: int = _RUN_BYTES) -> None:
        """Prepare for rows of `row_bytes` each, or of any size when None.

        Nothing is written, and `path` is not made, before there are more than `run_bytes` of rows.
        """
        self._path = path
        self._row_bytes = row_bytes
        self._run_bytes = run_bytes
        self._rows: list[bytes] = []
        self._runs: list[SortedRun] = []
        self._left = run_bytes

    def add(self, row: bytes) -> None:
        """Take a row."""
        self._rows.append(row)
        self._left -= len(row)
        if self._left < 0:
            self.spill()

    def extend(self, rows: Sequence[bytes]) -> None:
        """Take some rows, few enough for memory to hold them."""
        self._rows += rows
        self._left -= sum(map(len, rows))
        if self._left < 0:
            self.spill()

    def spill(self) -> None:
        """Write what is in memory to disk, so that another process can read it."""
        if self._rows:
            self._rows.sort()
            self._runs.append(_write(self._path, [self._rows], self._row_bytes))
        self._rows, self._left = [], self._run_bytes

    def runs(self) -> list[SortedRun]:
        """Return all runs, the last one being held in memory unless it was spilled."""
        self._rows.sort()
        return [*self._runs, *([SortedRun(held=self._rows)] if self._rows else [])]


def merged(runs: Sequence[SortedRun], scratch: Path, row_bytes: int | None = None) -> Iterator[list[bytes]]:
    """Yield the rows of all runs in order, in lists of any length; equal rows stay as many as they were.

    Memory is bounded however many runs there are: too many are first merged into longer ones, in the file `scratch`.
    """
    pending = list(runs)
    while len(pending) > _MAX_MERGED:
        first, pending = pending[:_MAX_MERGED], pending[_MAX_MERGED:]
        pending.append(_write(scratch, _merge(first, row_bytes), row_bytes))
    yield from _merge(pending, row_bytes)


def rows_of(runs: Sequence[SortedRun], scratch: Path, row_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the rows of all runs in order, one by one."""
    for rows in merged(runs, scratch, row_bytes):
        yield from rows


class Groups(Generic[T]):
    """Gives sorted items group by group; `key` is the key of the next group, None at the end."""

    def __init__(self, items: Iterable[T], key_of: Callable[[T], bytes]) -> None:
        self._groups = groupby(items, key_of)
        self.key: bytes | None = None
        self._group: Iterator[T] = iter(())
        self._advance()

    @contextmanager
    def of(self, key: bytes) -> Generator[Iterator[T]]:
        """Give the next group if it has this key, or else nothing; items that the block does not take are skipped."""
        if key == self.key:
            yield self._group
            self._advance()
        else:
            yield iter(())

    def _advance(self) -> None:
        self.key, self._group = next(self._groups, (None, iter(())))


def _merge(runs: Sequence[SortedRun], row_bytes: int | None) -> Iterator[list[bytes]]:
    block_bytes = max(_MIN_BLOCK_BYTES, _MERGE_BYTES // max(1, len(runs)))
    heads: list[tuple[bytes, int, int, list[bytes], Iterator[list[bytes]]]] = []
    for number, run in enumerate(runs):
        blocks = _blocks(run, row_bytes, block_bytes)
        for block in blocks:
            heads.append((block[0], number, 0, block, blocks))
            break
    heapq.heapify(heads)
    while len(heads) > 1:
        _, number, start, block, blocks = heapq.heappop(heads)
        # Runs overlap little where records came in order: most of the time a whole stretch goes before the next head.
        end = bisect_right(block, heads[0][0], start)
        yield block[start:end]
        if end < len(block):
            heapq.heappush(heads, (block[end], number, end, block, blocks))
            continue
        for following in blocks:
            heapq.heappush(heads, (following[0], number, 0, following, blocks))
            break
    for _, _, start, block, blocks in heads:
        yield block[start:]
        yield from blocks


def _blocks(run: SortedRun, row_bytes: int | None, block_bytes: int) -> Iterator[list[bytes]]:
    if run.held:
        yield run.held
    elif row_bytes:
        for block in _stored(run, block_bytes // row_bytes * row_bytes):
            yield [block[at : at + row_bytes] for at in range(0, len(block), row_bytes)]
    else:
        yield from _framed(run, block_bytes)


def _framed(run: SortedRun, block_bytes: int) -> Iterator[list[bytes]]:
    rest = b""
    for block in _stored(run, block_bytes):
        rest += block
        rows: list[bytes] = []
        at = 0
        while at + _LENGTH.size <= len(rest):
            (length,) = _LENGTH.unpack_from(rest, at)
            end = at + _LENGTH.size + length
            if end > len(rest):
                break
            rows.append(rest[at + _LENGTH.size : end])
            at = end
        rest = rest[at:]
        if rows:
            yield rows


def _stored(run: SortedRun, block_bytes: int) -> Iterator[bytes]:
    # Opened for each block: there may be more runs than a process may have open files.
    at, end = run.offset, run.offset + run.size_bytes
    while at < end:
        with Path(run.path).open("rb", buffering=0) as file:
            file.seek(at)
            block = file.read(min(block_bytes, end - at))
        if not block:
            raise OSError(f"{run.path} is shorter than what was written to it")
        at += len(block)
        yield block


def _write(path: Path, blocks: Iterable[Iterable[bytes]], row_bytes: int | None) -> SortedRun:
    with os.fdopen(open_private(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
        offset = file.seek(0, 2)
        for rows in blocks:
            file.write(b"".join(rows if row_bytes else (_LENGTH.pack(len(row)) + row for row in rows)))
        return SortedRun(str(path), offset, file.tell() - offset)
