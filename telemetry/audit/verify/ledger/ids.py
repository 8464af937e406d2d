"""Step 4 of the verification over all streams: one record id is that of one record."""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

from telemetry.audit.verify.findings import Fault
from telemetry.audit.verify.record.rows import IdRow, unpack_id_row

_RECORD: Final = slice(0, 16)
_DIGEST: Final = slice(16, 48)


class IdFault(NamedTuple):
    """A record whose id is also that of another one."""

    fault: Fault
    row: IdRow


class Ids:
    """Counts record ids, and collects those that records with different bodies share."""

    def __init__(self, losers: Mapping[bytes, Set[bytes]], anchored: Mapping[bytes, int]) -> None:
        self._losers = losers
        self._anchored = anchored
        self.count = 0

    def run(self, rows: Iterable[bytes]) -> Iterator[IdFault]:
        """Go through rows in order, any number of copies of each, and yield those whose id is another record's."""
        last = b""
        sharing: list[bytes] = []
        for row in rows:
            if row[_RECORD] != last[_RECORD]:
                if sharing:
                    yield from self._conflicts(sharing)
                    sharing = []
                self.count += 1
                last = row
            elif row[_DIGEST] != last[_DIGEST]:
                sharing.extend((row,) if sharing else (last, row))
                last = row
        if sharing:
            yield from self._conflicts(sharing)

    def _conflicts(self, rows: Iterable[bytes]) -> Iterator[IdFault]:
        """The record that holds its number keeps the id, one that a checkpoint covers before others."""
        holder, *others = sorted(map(unpack_id_row, rows), key=self._rank)
        detail = f"the record id is also that of a record with the hash {holder.digest.hex()}"
        for row in others:
            yield IdFault(Fault("conflicting_duplicate", detail), row)

    def _rank(self, row: IdRow) -> tuple[bool, bool, bytes, int, bytes]:
        is_loser = row.digest in self._losers.get(row.stream, ())
        is_unanchored = row.number > self._anchored.get(row.stream, 0)
        return is_loser, is_unanchored, row.stream, row.number, row.digest
