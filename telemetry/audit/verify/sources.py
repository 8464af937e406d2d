"""Reads a copy with all processors: processes take in the parts of its files, and here the results come together."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.verify.findings import At
from telemetry.audit.verify.read.archive import records_of_part
from telemetry.audit.verify.read.files import File, Part, parts_of, rounds_of
from telemetry.audit.verify.read.found import Found
from telemetry.audit.verify.record.gathered import Gathered
from telemetry.audit.verify.record.intake import Intake
from telemetry.audit.verify.record.rotation import RawKey, raw_of

Progress = Callable[[int, int], None]
"""Is called with the bytes read so far and all bytes."""

_LEAST_PART_BYTES: Final = 4 << 20
_MOST_PART_BYTES: Final = 64 << 20
_GARBAGE_OBJECTS: Final = 100_000
_PARTS_EACH: Final = 8
"""Parts for each process: many, so that no process works long on the last one while the others wait."""


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CopyReading(msgspec.Struct, frozen=True):
    """What was taken in of a copy, and the names of its sources."""

    gathered: Sequence[Gathered]
    sources: Sequence[str]
    lines_before: Sequence[int]
    """For each source that is a part of a file, the lines in the parts before it."""

    def place(self, at: At) -> str:
        """Return a place for a reader."""
        source, line = at
        before = self.lines_before[source] if source < len(self.lines_before) else 0
        return f"{self.sources[source]}:{before + line}"


def take_in(
    paths: Sequence[Path],
    others: Iterable[Found],
    keys: Sequence[Ed25519PublicKey],
    folder: Path,
    *,
    workers: int,
    progress: Progress | None = None,
) -> CopyReading:
    """Take in all records of files and folders, and then those that other readers found.

    The result does not depend on the number of processes.

    Args:
        paths: files and folders, in the order in which their records count as found.
        others: copies of records from elsewhere.
        keys: public keys under which signatures are checked.
        folder: where to put what memory does not hold.
        workers: how many processes to use.
        progress: is called in this process, now and then.

    Raises:
        OSError: a file cannot be read, or the folder not be written.
    """
    gathered: list[Gathered] = []
    names: list[str] = []
    before: list[int] = []
    done, total = 0, 0
    for files in rounds_of(paths):
        parts = _parts(files, workers)
        size = sum(part.size_bytes for part in parts)
        total += size
        lines = [0] * len(parts)
        for number, result in _results(parts, len(names), keys, folder, workers if size > _LEAST_PART_BYTES else 1):
            gathered.extend(result.gathered)
            lines[number] = result.lines
            done += parts[number].size_bytes
            if progress is not None:
                progress(done, total)
        names.extend(str(part.file.path) for part in parts)
        before.extend(_lines_before(parts, lines))
    intake = Intake(keys, folder, "-others")
    intake.first_source = len(names)
    for one in others:
        intake.take(one)
    return CopyReading([*gathered, intake.gathered()], [*names, *intake.sources()], before)


def _parts(files: Sequence[File], workers: int) -> list[Part]:
    whole = [part for file in files for part in parts_of(file)]
    each = sum(part.size_bytes for part in whole) // (workers * _PARTS_EACH)
    part_bytes = min(max(each, _LEAST_PART_BYTES), _MOST_PART_BYTES)
    return [part for file in files for part in parts_of(file, part_bytes)]


class _Result(msgspec.Struct, frozen=True):
    lines: int
    gathered: Sequence[Gathered] = ()


def _results(
    parts: Sequence[Part], first: int, keys: Sequence[Ed25519PublicKey], folder: Path, workers: int
) -> Iterator[tuple[int, _Result]]:
    """Yield the position and the result of each part, in no order; the first is the source of the number `first`."""
    pool = _pool(min(workers, len(parts)))
    if pool is None:
        intake = Intake(keys, folder, "")
        for number, part in enumerate(parts):
            lines = _take_in(part, first + number, intake)
            is_last = number == len(parts) - 1
            yield number, _Result(lines, [intake.gathered()] if is_last else ())
        return
    raw_keys = [raw_of(key) for key in keys]
    with pool:
        numbers = {pool.submit(_in_process, part, first + at, raw_keys, folder): at for at, part in enumerate(parts)}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError("a process that read the copy was killed: is there too little memory?") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor | None:
    """Return processes that read; None when this one is to do it."""
    if workers <= 1:
        return None
    # Not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    try:
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_process)
    except (ImportError, NotImplementedError, OSError):
        # Some sandboxes have no semaphores, which processes need to share work; the answer is the same, if later.
        return None


def _begin_process() -> None:
    # What a process makes of records is freed without the help of a collector, which would look at it all the time.
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS)
    # An interrupt from the terminal reaches all processes; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_process(part: Part, number: int, raw_keys: Sequence[RawKey], folder: Path) -> _Result:
    keys = [Ed25519PublicKey.from_public_bytes(key) for key in raw_keys]
    # A file for each process, which appends to it part by part.
    intake = Intake(keys, folder, f"-{os.getpid()}")
    lines = _take_in(part, number, intake)
    intake.spill()
    return _Result(lines, [intake.gathered()])


def _take_in(part: Part, number: int, intake: Intake) -> int:
    intake.source = number
    lines = 0
    for number_of_line, found in records_of_part(part):
        lines = number_of_line
        for one in found:
            intake.take(one)
    return lines


def _lines_before(parts: Sequence[Part], lines: Sequence[int]) -> list[int]:
    """Return for each part how many lines of its file stand in the parts before."""
    before: list[int] = []
    for at, part in enumerate(parts):
        before.append(0 if part.start == 0 else before[-1] + lines[at - 1])
    return before
