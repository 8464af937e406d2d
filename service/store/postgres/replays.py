"""What was delivered, in the order of time, for a sink that is new; and how far a run got, by sink."""

from collections.abc import Sequence
from typing import Any

import msgspec

from service.ports import OutboxRecord, ReplayBegun
from service.store.postgres.outbox import outbox_record
from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import SQL
from service.store.queries import Row


class _Place(msgspec.Struct, frozen=True):
    """The record behind which to go on, and how many were refused up to there."""

    observed_ns: int = 0
    stream_id: str = ""
    refused: int = 0


class PostgresReplays:
    """Implements `service.ports.Replays` on a session of its own; every method can be repeated."""

    def __init__(self, url: str, sink: str) -> None:
        """Open the ledger for one sink, which has this name."""
        self._name = f"replay {sink}"
        self._records, self._place, self._last_ns = 0, _Place(), 0
        self._read = (self._records, self._place)
        self._pool = SessionPool(url, read_only=False, size=1, prepare=SQL["relaxed"])

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Go on where an earlier run stopped, or at the first record."""
        if from_start:
            self.end()
        for place, records in self._all("replay", {"name": self._name}):
            self._place, self._records = msgspec.json.decode(place, type=_Place), records
        for (last_ns,) in self._all("last_observed", {}):
            self._last_ns = last_ns
        ((total,),) = self._all("delivered_count", {})
        return ReplayBegun(self._records, self._place.refused, total)

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records that were delivered, the same ones until `answered`; none at the end."""
        place = self._place
        while rows := self._behind(place, max_records, max_bytes):
            found: list[OutboxRecord] = []
            bytes_left = max_bytes
            for observed_ns, is_delivered, *columns in rows:
                if is_delivered:
                    record = outbox_record(tuple(columns))
                    bytes_left -= len(record.log_record)
                    if bytes_left < 0 and found:
                        break
                    found.append(record)
                place = _Place(observed_ns, columns[0])
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

    def close(self) -> None:
        """Close the session."""
        self._pool.close()

    def _behind(self, place: _Place, max_records: int, max_bytes: int) -> Sequence[Row]:
        values = {"observed_ns": place.observed_ns, "stream_id": place.stream_id, "last_ns": self._last_ns}
        return self._all("records_behind", {**values, "limit": max_records, "max_bytes": max_bytes})

    def _all(self, name: str, values: dict[str, Any]) -> Sequence[Row]:
        return self._pool.run(lambda session: session.execute(SQL[name], values, binary=True).fetchall())

    def _do(self, name: str, values: dict[str, Any]) -> None:
        self._pool.run(lambda session: session.execute(SQL[name], {"name": self._name, **values}))
