"""What was delivered, in the order of commits, for a sink that is new; and how far a run got, by sink."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from service.ports import OutboxRecord, ReplayBegun
from service.store.sqlite.connection import connect
from service.store.sqlite.outbox import outbox_record
from service.store.sqlite.transaction import SQL


class _Place(msgspec.Struct, frozen=True):
    """The position behind which to go on, and how many records were refused up to there."""

    position: int = 0
    refused: int = 0


class SqliteReplays:
    """Implements `service.ports.Replays` on a connection of its own."""

    def __init__(self, path: Path, sink: str) -> None:
        """Open the ledger for one sink, which has this name."""
        self._name = f"replay {sink}"
        self._records = self._position = self._last = 0
        self._read = (0, 0)
        self._connection = connect(path)
        self._connection.execute(SQL["relaxed"])

    def begin(self, *, from_start: bool) -> ReplayBegun:
        """Go on where an earlier run stopped, or at the first record."""
        if from_start:
            self.end()
        with self._connection.in_place() as connection:
            found = connection.execute(SQL["replay"], {"name": self._name}).fetchone()
            (self._last,) = connection.execute(SQL["last_position"]).fetchone()
            (total,) = connection.execute(SQL["delivered_count"]).fetchone()
        place = _Place()
        if found is not None:
            place, self._records = msgspec.json.decode(found[0], type=_Place), found[1]
        self._position = place.position
        return ReplayBegun(self._records, place.refused, total)

    def next(self, max_records: int, max_bytes: int) -> Sequence[OutboxRecord]:
        """Return the next records that were delivered, the same ones until `answered`; none at the end."""
        found: list[OutboxRecord] = []
        values = {"behind": self._position, "last": self._last, "limit": max_records}
        # Else a sink would be filled from a file that is not the database any more.
        with (
            self._connection.in_place() as connection,
            closing(connection.execute(SQL["delivered_behind"], values)) as rows,
        ):
            for position, *columns in rows:
                record = outbox_record(tuple(columns))
                max_bytes -= len(record.log_record)
                if max_bytes < 0 and found:
                    break
                found.append(record)
                self._read = (position, self._records + len(found))
        return found

    def answered(self, refused: int) -> None:
        """Keep that the sink has answered for all that `next` returned, and refused so many until now."""
        position, records = self._read
        place = msgspec.json.encode(_Place(position, refused)).decode()
        with self._connection.in_place() as connection:
            connection.execute(SQL["put_replay"], {"name": self._name, "place": place, "records": records})
        self._position, self._records = position, records

    def end(self) -> None:
        """Forget how far it got."""
        with self._connection.in_place() as connection:
            connection.execute(SQL["forget_replay"], {"name": self._name})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
