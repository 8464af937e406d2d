"""Reads for those who follow the audit trail: records behind a position, up to the newest one."""

from collections.abc import Sequence
from typing import Any, ClassVar

from service.errors import InvalidRequestError
from service.ports import FollowedRecord, RecordFilter, TrailPosition
from service.store.queries import Execute, Row, one
from service.store.reading import LedgerReads
from service.store.rows import decode_cursor, encode_cursor, stored_of

# Of the position before all records.
_NO_RECORD = ""


class FollowedReads(LedgerReads):
    """Implements what `service.ports.Reads` has for follows.

    No record can be committed at or before a position that `newest_position` has returned. This relies on the bound of
    listings: on SQLite the order of commits, on PostgreSQL the horizon (docs/adr/0010).
    """

    cursor_and_record: ClassVar[Any]
    """The type of a position, followed by the id of the record at it."""

    def first_position(self) -> TrailPosition:
        """Return the position before all records."""
        return _position(self.start, _NO_RECORD)

    def newest_position(self) -> TrailPosition:
        """Return the position of the newest record before which no other record can be committed any more."""

        def read(execute: Execute) -> Row | None:
            bounds = self._named("before", (self._newest(execute), *self.start[1:]))
            return one(execute("records", {**bounds, "limit": 1}, []))

        row = self._connections.run(read)
        return self.first_position() if row is None else _position(self._place_of(row), row[0])

    def position_of(self, cursor: str) -> TrailPosition:
        """Return the position that a cursor names.

        Its record must be there: after a restore, SQLite gives the positions of lost records to other records.
        """
        try:
            *at, record_id = decode_cursor(cursor, self.cursor_and_record)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                "the cursor is not the id of an event of this trail: send the last id as it came, or begin with since"
            ) from error
        position = _position(at, record_id)
        if position != self.first_position() and self.record(record_id, None) is None:
            raise InvalidRequestError(
                "the record that the cursor names is not in this ledger: begin with since, and drop what you have twice"
            )
        return position

    def followed(
        self, where: RecordFilter, behind: TrailPosition, up_to: TrailPosition, limit: int
    ) -> Sequence[FollowedRecord]:
        """Return at most `limit` records behind a position, up to a newest position, in their order."""
        # The bound of a listing is the first place that it leaves out.
        bound = int(up_to.at[0]) + 1
        rows = self._connections.run(lambda execute: self._stored_behind(execute, where, behind.at, bound, limit))
        found = [(stored_of(row).record, self._place_of(row)) for row in rows]
        return [FollowedRecord(_position(at, record.record_id), record) for record, at in found]


def _position(at: Sequence[int | str], record_id: str) -> TrailPosition:
    return TrailPosition(tuple(at), encode_cursor(*at, record_id))
