"""What was delivered, in the order of commits, for a sink that is new; and how far a run got, by sink."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from service.ports import OutboxRecord, ReplayBegun
from service.store.outbox import outbox_record
from service.store.queries import Execute, Row

T = TypeVar("T")


class ReplayPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The record behind which to go on, and how many were refused up to there."""

    refused: int = 0


P = TypeVar("P", bound=ReplayPlace)


class LedgerReplays(ABC, Generic[P]):
    """Implements `service.ports.Replays`, but for the order of records; every method can be repeated."""

    def __init__(self, sink: str, start: P) -> None:
        """Read for the sink of this name, from `start` on where it has none yet."""
        self._name = f"replay {sink}"
        self._start = self._place = start
        self._records = self._last = 0
        self._read = (self._records, self._place)

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abstractmethod
    def _run(self, work: Callable[[Execute], T]) -> T:
        """Return what `work` returns, each statement of which is a transaction of its own."""

    @abstractmethod
    def _place_at(self, ordered_by: int, stream_id: str) -> P:
        """Return the place of a record of `records_behind`."""

    @abstractmethod
    def _behind(self, place: P) -> Mapping[str, object]:
        """Return what `records_behind` is told of a place."""

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Go on where an earlier run stopped, or at the first record."""
        if from_start:
            self.end()
        self._place, self._records = self._start, 0
        for place, records in self._all("replay", {"name": self._name}):
            self._place, self._records = msgspec.json.decode(place, type=type(self._start)), records
        ((self._last,),) = self._all("last_place", {})
        ((total,),) = self._all("delivered_count", {})
        return ReplayBegun(self._records, self._place.refused, total)

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records that were delivered, the same ones until `answered`; none at the end."""
        place = self._place
        limits = {"last": self._last, "limit": max_records, "max_bytes": max_bytes}
        while rows := self._all("records_behind", {**self._behind(place), **limits}):
            found: list[OutboxRecord] = []
            bytes_left = max_bytes
            for ordered_by, is_delivered, *columns in rows:
                if is_delivered:
                    record = outbox_record(tuple(columns))
                    bytes_left -= len(record.log_record)
                    if bytes_left < 0 and found:
                        break
                    found.append(record)
                place = self._place_at(ordered_by, columns[0])
            if found:
                self._read = (self._records + len(found), place)
                return found
        return ()

    def answered(self, refused: int) -> None:
        """Keep that the sink has answered for all that `next` returned, and refused so many until now."""
        records, place = self._read
        place = msgspec.structs.replace(place, refused=refused)
        self._do("put_replay", {"place": msgspec.json.encode(place).decode(), "records": records})
        self._records, self._place = records, place

    def end(self) -> None:
        """Forget how far it got."""
        self._do("forget_replay", {})

    def _all(self, name: str, values: Mapping[str, object]) -> Sequence[Row]:
        return self._run(lambda execute: list(execute(name, values)))

    def _do(self, name: str, values: Mapping[str, object]) -> None:
        self._run(lambda execute: execute(name, {"name": self._name, **values}))
