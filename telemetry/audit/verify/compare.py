"""Names what one copy of the ledger has and another lacks, record by record, without verifying either."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from telemetry.audit.verify.read.found import Found
from telemetry.audit.verify.record.rows import DIGEST, IDENTITY, ROW_BYTES, STREAM, key_of, number_of, unpack, uuid_of
from telemetry.audit.verify.scope import Scope
from telemetry.audit.verify.sources import CopyReading, Progress, processors, take_in
from telemetry.audit.verify.spill import rows_of

ComparisonVerdict: TypeAlias = Literal["same", "different", "not_checked"]

_END: Final = b"\xff" * 64
_UNREAD: Final = frozenset({"torn_line", "body_missing", "body_not_json"})
_EXIT_STATUS: Final[dict[ComparisonVerdict, int]] = {"same": 0, "different": 1, "not_checked": 2}


class Copy(msgspec.Struct, frozen=True):
    """A copy of the ledger, under the name that it is reported by."""

    name: str
    paths: Sequence[Path] = ()
    found: Iterable[Found] = ()


class Difference(msgspec.Struct, frozen=True):
    """Records of one stream, numbers `first` to `last`, that only one copy has.

    A record that the copies have with different hashes is a difference of both. `hash` is that of the first.
    """

    only_in: str
    stream_id: str
    first: int
    last: int
    hash: str


class Compared(msgspec.Struct, frozen=True):
    """One copy: how many distinct records it holds, and how many of its lines or log records could not be read."""

    name: str
    records: int
    unread: int


class Comparison(msgspec.Struct, frozen=True):
    """What two copies have in common, and what not; encodes to the JSON of `auditrace verify --compare`."""

    verdict: ComparisonVerdict
    copies: tuple[Compared, Compared]
    common: int
    differences: tuple[Difference, ...]

    @property
    def exit_status(self) -> int:
        """0 the same records, 1 differences, 2 no record in either."""
        return _EXIT_STATUS[self.verdict]

    def summary(self) -> str:
        """Return the comparison for a reader at a terminal, one line for each difference."""
        lines = [f"{self.verdict}: {self.common} records in both"]
        for copy in self.copies:
            unread = f", {copy.unread} that could not be read" if copy.unread else ""
            lines.append(f"{copy.name}: {copy.records} records{unread}")
        lines.extend(map(_line, self.differences))
        return "\n".join(lines)


def compare(
    one: Copy,
    other: Copy,
    *,
    scope: Scope | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two copies by stream, number and record hash; of a scope, if given, by the times that records state.

    Raises:
        OSError: a file cannot be read, or there is no room on disk for what memory does not hold.
    """
    with tempfile.TemporaryDirectory(prefix="auditrace-verify-") as folder:
        readings: list[tuple[CopyReading, Path]] = []
        for at, copy in enumerate((one, other)):
            own = Path(folder) / str(at)
            own.mkdir(mode=0o700)
            read = take_in(copy.paths, copy.found, (), own, workers=workers or processors(), progress=progress)
            readings.append((read, own))
        return _Comparing((one.name, other.name), readings, scope or Scope()).run()


class _Comparing:
    def __init__(self, names: tuple[str, str], readings: Sequence[tuple[CopyReading, Path]], scope: Scope) -> None:
        self._names = names
        self._readings = readings
        self._scope = scope
        self._wanted = {key_of(stream_id)[0] for stream_id in scope.streams}
        self._texts: dict[bytes, str] = {}
        for reading, _ in readings:
            for gathered in reading.gathered:
                self._texts |= gathered.odd_streams
        self._only = [0, 0]
        self._open: list[Difference | None] = [None, None]
        self._differences: list[Difference] = []

    def run(self) -> Comparison:
        one, other = (self._records(reading, folder) for reading, folder in self._readings)
        mine, theirs = next(one, _END), next(other, _END)
        common = 0
        while mine != _END or theirs != _END:
            if mine == theirs:
                common += 1
                mine, theirs = next(one, _END), next(other, _END)
            elif mine < theirs:
                self._add(0, mine)
                mine = next(one, _END)
            else:
                self._add(1, theirs)
                theirs = next(other, _END)
        return Comparison(
            verdict="different" if any(self._only) else "same" if common else "not_checked",
            copies=(self._compared(0, common), self._compared(1, common)),
            common=common,
            differences=self._in_order(),
        )

    def _records(self, reading: CopyReading, folder: Path) -> Iterator[bytes]:
        """Yield stream, number and hash of the records in the scope, each once and in order."""
        runs = list(chain.from_iterable(gathered.rows for gathered in reading.gathered))
        last = b""
        for row in rows_of(runs, folder / "merged", ROW_BYTES):
            if row[IDENTITY] != last and self._is_wanted(row):
                last = row[IDENTITY]
                yield last

    def _is_wanted(self, row: bytes) -> bool:
        if self._wanted and row[STREAM] not in self._wanted:
            return False
        return self._scope.since_ns is None or unpack(row).observed >= self._scope.since_ns

    def _add(self, copy: int, identity: bytes) -> None:
        self._only[copy] += 1
        stream = identity[STREAM]
        stream_id = self._texts.get(stream) or uuid_of(stream)
        number = number_of(identity)
        known = self._open[copy]
        if known is not None and known.stream_id == stream_id and known.last == number - 1:
            self._open[copy] = msgspec.structs.replace(known, last=number)
            return
        if known is not None:
            self._differences.append(known)
        self._open[copy] = Difference(self._names[copy], stream_id, number, number, identity[DIGEST].hex())

    def _in_order(self) -> tuple[Difference, ...]:
        rest = [known for known in self._open if known is not None]
        return tuple(sorted([*self._differences, *rest], key=lambda one: (one.stream_id, one.first, one.only_in)))

    def _compared(self, copy: int, common: int) -> Compared:
        findings = chain.from_iterable(gathered.findings for gathered in self._readings[copy][0].gathered)
        unread = sum(noted.fault.code in _UNREAD for noted in findings)
        return Compared(self._names[copy], common + self._only[copy], unread)


def _line(difference: Difference) -> str:
    numbers = (
        str(difference.first) if difference.first == difference.last else f"{difference.first} to {difference.last}"
    )
    return f"only in {difference.only_in}: {difference.stream_id} {numbers}"
