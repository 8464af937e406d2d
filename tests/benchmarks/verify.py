"""How fast copies are verified: against only decoding and hashing the same lines, on one processor, in the same run."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from telemetry.audit.verify import Expected, Finding, Report, Scope
from telemetry.audit.verify.ledger.examination import Examination
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import SourcePlace
from telemetry.audit.verify.read.otlp_json import records_of
from telemetry.audit.verify.record.fast_path import prove
from telemetry.audit.verify.record.intake import Intake
from telemetry.audit.verify.sources import processors, take_in
from tests.benchmarks.ledgers import write_archive
from tests.support.ledger_maker import KEY

GOAL = 0.7
RECORDS = 1_000_000
SMALL_RECORDS = 20_000
CACHE = Path(tempfile.gettempdir()) / "auditrace-benchmarks"

_SAMPLED_LINES = 300
_ROUNDS = 5


def measure(*, is_small: bool) -> Iterator[str]:
    """Yield what was measured, line by line; a line that begins with MISSED says that the goal was not met."""
    count = SMALL_RECORDS if is_small else RECORDS
    files = write_archive(CACHE / f"plain-{count}", count)
    size = sum(file.stat().st_size for file in files)
    yield f"{count} records of OTLP JSON lines, {size / count:.0f} bytes each, in {len(files)} files"
    with tempfile.TemporaryDirectory(prefix="auditrace-benchmark-") as folder:
        altered, changed = _altered(files[-1], Path(folder))
        copy = [*files[:-1], altered]
        before = _decode_and_hash(copy)
        taken, concluded, report = _verify(copy, Path(folder))
        after = _decode_and_hash(copy)
    base_s, verified_s = (before.wall_s + after.wall_s) / 2, taken.wall_s + concluded.wall_s
    yield _rate("decoding and hashing alone, one processor", count, base_s)
    yield _rate(f"verifying, {processors()} processors", count, verified_s)
    yield f"  taking in {taken.wall_s:.2f} s, conclusion {concluded.wall_s:.2f} s"
    # What the ratio would be on processors that nobody else uses.
    alone_s = taken.processor_s / processors() + concluded.processor_s
    yield (
        f"  of processor time {(before.processor_s + after.processor_s) / 2:.2f} s alone, "
        f"{taken.processor_s:.2f} s to take in and {concluded.processor_s:.2f} s to conclude: "
        f"{(before.processor_s + after.processor_s) / 2 / alone_s:.2f}"
    )
    yield from _shares(files[0])
    yield f"the altered record: {', '.join(sorted({finding.code for finding in report.findings}))}"
    if not _is_found(report, changed):
        yield "MISSED: the altered record was not found where it is, or something else was"
    ratio = base_s / verified_s
    yield f"{'MISSED' if ratio < GOAL and not is_small else 'ratio'}: {ratio:.2f}, the goal is {GOAL}"


def _altered(file: Path, folder: Path) -> tuple[Path, int]:
    """Return a copy of a file with another actor in the body of one record, and the number of that record."""
    lines = file.read_bytes().split(b"\n")
    body = rb"\"audit.actor.id\":\"bob\""
    at = next(at for at in range(len(lines) * 2 // 3, len(lines)) if body in lines[at])
    found = lines[at].index(body)
    start = lines[at].index(rb"\"audit.sequence.number\":", found)
    number = int(lines[at][start:].split(b":", 1)[1].split(b",", 1)[0])
    lines[at] = lines[at].replace(body, body.replace(b"bob", b"eve"), 1)
    altered = folder / file.name
    altered.write_bytes(b"\n".join(lines))
    return altered, number


def _is_found(report: Report, number: int) -> bool:
    """Tell whether the altered record was found at its place, the one behind it and its tip, and nothing else."""

    def is_near(finding: Finding) -> bool:
        return finding.number in {number, number + 1} or finding.code == "leaves"

    places = {finding.number for finding in report.findings}
    return report.verdict == "broken" and number in places and all(map(is_near, report.findings))


class _Took(NamedTuple):
    """How long something took, by the clock and in time of processors, of child processes that ended too."""

    wall_s: float
    processor_s: float

    def since(self, start: "_Took") -> "_Took":
        return _Took(self.wall_s - start.wall_s, self.processor_s - start.processor_s)


def _now() -> _Took:
    return _Took(time.perf_counter(), sum(os.times()[:4]))


def _decode_and_hash(files: Sequence[Path]) -> _Took:
    decode, wall_s, processor_s = msgspec.json.Decoder().decode, 0.0, 0.0
    for file in files:
        lines = file.read_bytes().splitlines(keepends=True)
        start = _now()
        for line in lines:
            decode(line)
            hashlib.sha256(line).digest()
        took = _now().since(start)
        wall_s, processor_s = wall_s + took.wall_s, processor_s + took.processor_s
    return _Took(wall_s, processor_s)


def _verify(files: Sequence[Path], folder: Path) -> tuple[_Took, _Took, Report]:
    keys = [KEY.public_key()]
    start = _now()
    reading = take_in(files, (), keys, folder, workers=processors())
    taken = _now()
    examination = Examination(reading, keys, Scope(), Expected(), folder)
    examination.check_checkpoints()
    examination.check_end()
    examination.check_streams()
    examination.check_ids()
    report = examination.report()
    return taken.since(start), _now().since(taken), report


def _shares(file: Path) -> Iterator[str]:
    """Say where the time of one process goes, measured over some lines again and again."""
    with file.open("rb") as stream:
        lines = [line for _, line in zip(range(_SAMPLED_LINES), stream, strict=False)]
    place = SourcePlace(str(file), 1)
    found = [one for line in lines for one in records_of_line(line, place)]
    sound = [(proof, one.index) for one in found if (proof := prove(one.body or "")) is not None and one.index]

    def take_in_all() -> None:
        intake = Intake([KEY.public_key()], file.parent, "-unused")
        for one in found:
            intake.take(one)

    steps: dict[str, Callable[[], object]] = {
        "OTLP JSON to records": lambda: [records_of(line, place) for line in lines],
        "bodies (step 2)": lambda: [prove(one.body or "") for one in found],
        "indexes (step 3)": lambda: [proof.agrees_with(index) for proof, index in sound],
        "all of steps 2 and 3, and rows": take_in_all,
    }
    for name, step in steps.items():
        best = min(_seconds(step) for _ in range(_ROUNDS))
        yield f"  {name}: {best / len(found) * 1e6:.1f} µs a record and processor"


def _seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def _rate(what: str, count: int, seconds: float) -> str:
    return f"{what}: {seconds:.2f} s, {count / seconds:,.0f} records/s, {seconds / count * 1e6:.1f} µs each"
