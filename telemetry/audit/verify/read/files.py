"""Finds the files of a copy and cuts them into parts that can be read at the same time, whatever packed them."""

import gzip
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal, Protocol, TypeAlias

import msgspec
import zstandard

from telemetry.files import open_regular

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SIZE_BYTES: Final = 4
_BLOCK_BYTES: Final = 1 << 20

Packing: TypeAlias = Literal["plain", "gzip", "zstd", "zstd_framed"]

_CUT_SHORT: Final = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class File(msgspec.Struct, frozen=True):
    """A file to read; one that was found in a folder `may_vanish` meanwhile, renamed or compressed by a rotation."""

    path: Path
    may_vanish: bool


class Part(msgspec.Struct, frozen=True):
    """The lines of a file that begin within `start` to `end`, in bytes as they are stored.

    A compressed file is one part.
    """

    file: File
    packing: Packing
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How much of the file this is."""
        return self.end - self.start


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def rounds_of(paths: Sequence[Path]) -> Iterator[list[File]]:
    """Yield the files of `paths` in the order of their names, and then again those that were not there before.

    A folder stands for every file below it whose name does not begin with a dot. A file that is written to while it is
    read may be renamed in between: what is missed under one name comes under the other, and twice does not matter.

    Raises:
        OSError: a folder cannot be read.
    """
    seen: set[Path] = set()
    while new := [file for path in paths for file in _files_below(path) if file.path not in seen]:
        yield new
        seen.update(file.path for file in new)


def parts_of(file: File, part_bytes: int | None = None) -> Sequence[Part]:
    """Return the parts of a file, of about `part_bytes` each where it can be cut; none if it vanished.

    How a file is compressed is told by its first bytes; Zstandard frames that each follow their length, as the
    collector's file exporter writes them, are known too.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with _opened(file) as stream:
        if stream is None:
            return []
        packing = _packing(stream.read(_SIZE_BYTES + len(_ZSTD)))
        size = stream.seek(0, 2)
    if packing != "plain" or not part_bytes:
        return [Part(file, packing, 0, size)]
    starts = range(0, max(size, 1), part_bytes)
    return [Part(file, packing, start, min(start + part_bytes, size)) for start in starts]


def lines_of(part: Part) -> Iterator[bytes | None]:
    """Yield the lines of a part, each with its line feed unless the file ends without one; none if it vanished.

    None at the end says that a compressed file was cut short, as by a crash, behind what could be read.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with _opened(part.file) as stream:
        if stream is None:
            return
        try:
            yield from _unpacked(stream, part)
        except _CUT_SHORT:
            yield None


@contextmanager
def _opened(file: File) -> Generator[IO[bytes] | None]:
    try:
        stream = os.fdopen(open_regular(file.path), "rb", buffering=_BLOCK_BYTES)
    except FileNotFoundError:
        if not file.may_vanish:
            raise
        yield None
        return
    with stream:
        yield stream


def _unpacked(stream: IO[bytes], part: Part) -> Iterator[bytes]:
    match part.packing:
        case "plain":
            yield from _range(stream, part)
        case "gzip":
            yield from _split(gzip.GzipFile(fileobj=stream))
        case "zstd":
            yield from _split(zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True))
        case "zstd_framed":
            yield from _framed(stream)


def _files_below(path: Path) -> list[File]:
    if not path.is_dir():
        return [File(path, may_vanish=False)]
    below = (file for file in path.rglob("*") if file.is_file())
    shown = (file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return [File(file, may_vanish=True) for file in sorted(shown)]


def _packing(start: bytes) -> Packing:
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_ZSTD):
        return "zstd"
    return "zstd_framed" if start[_SIZE_BYTES:] == _ZSTD else "plain"


def _range(stream: IO[bytes], part: Part) -> Iterator[bytes]:
    at = stream.seek(max(0, part.start - 1))
    if part.start > 0:
        # The end of a line that begins in the part before; its line feed may be the byte before this part.
        at += len(stream.readline())
    while at < part.end:
        line = stream.readline()
        at += len(line) or part.end
        if line:
            yield line


def _split(stream: _Readable) -> Iterator[bytes]:
    """Yield lines, the last one also when an error cuts it short."""
    pieces: list[bytes] = []
    while True:
        try:
            block = stream.read(_BLOCK_BYTES)
        except _CUT_SHORT:
            if pieces:
                yield b"".join(pieces)
            raise
        if not block:
            break
        first, *others = block.split(b"\n")
        pieces.append(first)
        if others:
            yield b"".join(pieces) + b"\n"
            *whole, rest = others
            for line in whole:
                yield line + b"\n"
            pieces = [rest] if rest else []
    if pieces:
        yield b"".join(pieces)


def _framed(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the messages of the collector's file exporter with `compression: zstd`: a big-endian length, one frame."""
    decompressor = zstandard.ZstdDecompressor()
    while size := stream.read(_SIZE_BYTES):
        frame = stream.read(int.from_bytes(size, "big"))
        if len(size) < _SIZE_BYTES or len(frame) < int.from_bytes(size, "big"):
            raise EOFError
        yield decompressor.decompressobj().decompress(frame) + b"\n"
