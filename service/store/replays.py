"""Reads delivered records for a new sink, in the order of commits, and stores how far each sink's replay got."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from service.ports import OutboxRecord, ReplayBegun
from service.store.connections import Connections
from service.store.outbox import outbox_record
from service.store.queries import Row

_REFUSED: Final = "refused"


class LedgerReplays:
    """Implements `service.ports.Replays` on a connection of its own; every method can be repeated."""

    def __init__(self, connection: Connections, sink: str, start: Mapping[str, int | str]) -> None:
        """Read for the sink of this name.

        Args:
            connection: `close` closes it.
            sink: the name.
            start: the place before all records. Its keys name what the store orders records by: a number, then the
                stream if the number alone is not unique.
        """
        self._connection = connection
        self._name = f"replay {sink}"
        self._start = start
        self._place: Mapping[str, int | str] = start
        self._records = self._last = 0
        self._read: tuple[int, Mapping[str, int | str]] = (0, start)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Continue where an earlier run stopped, or begin at the first record."""
        if from_start:
            self.end()
        self._place, self._records, refused = self._start, 0, 0
        for stored, records in self._all("replay", {"name": self._name}):
            place = msgspec.json.decode(stored, type=dict[str, int | str])
            refused, self._records = int(place.pop(_REFUSED, 0)), records
            self._place = {**self._start, **place}
        ((self._last,),) = self._all("last_place", {})
        ((total,),) = self._all("delivered_count", {})
        return ReplayBegun(self._records, refused, total)

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next delivered records, and the same ones again until `answered` is called; none at the end."""
        place = self._place
        limits = {"last": self._last, "limit": max_records, "max_bytes": max_bytes}
        while rows := self._all("records_behind", {**place, **limits}):
            found: list[OutboxRecord] = []
            bytes_left = max_bytes
            for ordered_by, is_delivered, *columns in rows:
                if is_delivered:
                    record = outbox_record(tuple(columns))
                    bytes_left -= len(record.log_record)
                    if bytes_left < 0 and found:
                        break
                    found.append(record)
                place = dict(zip(self._start, (ordered_by, columns[0]), strict=False))
            if found:
                self._read = (self._records + len(found), place)
                return found
        return ()

    def answered(self, refused: int) -> None:
        """Store that the sink answered all records that `next` returned, and how many it has refused so far."""
        records, place = self._read
        stored = msgspec.json.encode({**place, _REFUSED: refused}).decode()
        self._do("put_replay", {"place": stored, "records": records})
        self._records, self._place = records, place

    def end(self) -> None:
        """Forget how far the replay got."""
        self._do("forget_replay", {})

    def _all(self, name: str, values: Mapping[str, object]) -> Sequence[Row]:
        return self._connection.run(lambda execute: list(execute(name, values)))

    def _do(self, name: str, values: Mapping[str, object]) -> None:
        self._connection.run(lambda execute: execute(name, {"name": self._name, **values}))
