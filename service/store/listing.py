"""Pages of records in the order of commits, found by an index that leads to what the filter matches."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Final

import msgspec

from service.ports import ListingOrder, Page, RecordFilter, RecordRow, StoredRecord
from service.store.conditions import Dialect, by_value, by_value_left, conditions_of, leading_filter
from service.store.connections import Connections
from service.store.queries import Execute, Row
from service.store.rows import decode_cursor, encode_cursor, record_of_row, stored_of

NEAR: Final = 3
"""How many pages are looked at record by record, before what an exclusion leaves is looked for by its values."""
_STATEMENTS: Final = {ListingOrder.DESC: ("places_before", "records"), ListingOrder.ASC: ("places_behind", "stored")}


class RecordListings(ABC):
    """Reads pages of records; subclasses add what differs between databases."""

    dialect: ClassVar[Dialect]
    order: ClassVar[Sequence[str]]
    """The names of what records are ordered by: the order of commits, as far as the database knows it."""
    start: ClassVar[Sequence[int | str]]
    """The place in that order before all records."""
    cursor: ClassVar[Any]
    """The type of a place."""
    cursor_and_newest: ClassVar[Any]
    """The type of a place, followed by the bound before which records are listed."""

    def __init__(self, connections: Connections) -> None:
        """Read on these connections."""
        self._connections = connections

    @abstractmethod
    def _newest(self, execute: Execute) -> int:
        """Return the bound before which records can be listed: no new record can appear before it."""

    def records(
        self, where: RecordFilter, cursor: str | None, limit: int, order: ListingOrder = ListingOrder.DESC
    ) -> Page[RecordRow]:
        """Return one page of records, last committed first unless `order` says otherwise.

        The first page fixes the upper bound, so nothing is skipped or shown twice while records are added.
        """
        if order is ListingOrder.ASC:
            page = self._ascending(where, cursor, limit, is_led=True)
            return Page([stored.record for stored in page.rows], page.next_cursor)
        before = decode_cursor(cursor, self.cursor) if cursor else None

        def read(execute: Execute) -> Sequence[Row]:
            bounds = self._named("before", before or (self._newest(execute), *self.start[1:]))
            return _Listing(execute, self.dialect, order, bounds).rows(where, limit + 1)

        rows = self._connections.run(read)
        more = encode_cursor(*self._place_of(rows[limit - 1])) if len(rows) > limit else None
        return Page([record_of_row(row) for row in rows[:limit]], more)

    def stored(self, where: RecordFilter, cursor: str | None, limit: int) -> Page[StoredRecord]:
        """Return one page of records with their bytes, first committed first, up to the bound of the first page."""
        return self._ascending(where, cursor, limit, is_led=False)

    def _ascending(self, where: RecordFilter, cursor: str | None, limit: int, *, is_led: bool) -> Page[StoredRecord]:
        place = decode_cursor(cursor, self.cursor_and_newest) if cursor else None

        def read(execute: Execute) -> tuple[Sequence[Row], int]:
            *behind, newest = place or (*self.start, self._newest(execute))
            return self._stored_behind(execute, where, behind, newest, limit + 1, is_led=is_led), newest

        rows, newest = self._connections.run(read)
        more = encode_cursor(*self._place_of(rows[limit - 1]), newest) if len(rows) > limit else None
        return Page([stored_of(row) for row in rows[:limit]], more)

    def _stored_behind(
        self,
        execute: Execute,
        where: RecordFilter,
        behind: Sequence[int | str],
        newest: int,
        limit: int,
        *,
        is_led: bool = True,
    ) -> Sequence[Row]:
        """Return the first rows of `stored` behind a place, up to the bound `newest`."""
        bounds = {**self._named("behind", behind), "newest": newest}
        listing = _Listing(execute, self.dialect, ListingOrder.ASC, bounds)
        return (listing.rows if is_led else listing.all_rows)(where, limit)

    def _named(self, side: str, place: Sequence[int | str]) -> dict[str, object]:
        return {f"{side}_{name}": value for name, value in zip(self.order, place, strict=True)}

    def _place_of(self, row: Row) -> Row:
        """Return the last columns of a row of `records` or `stored`, by which it is ordered."""
        return row[-len(self.order) :]


class _Listing:
    """One page in one order within these bounds."""

    def __init__(self, execute: Execute, dialect: Dialect, order: ListingOrder, bounds: Mapping[str, object]) -> None:
        self._execute = execute
        self._dialect = dialect
        self._bounds = bounds
        self._is_descending = order is ListingOrder.DESC
        self._places_statement, self._rows_statement = _STATEMENTS[order]

    def all_rows(self, where: RecordFilter, limit: int) -> Sequence[Row]:
        """Return the first rows that match, in one statement whose plan the database chooses."""
        return self._found(self._rows_statement, where, limit)

    def rows(self, where: RecordFilter, limit: int) -> Sequence[Row]:
        """Return the first rows that match; how much is read does not grow with the ledger where an index can lead.

        No index has several values in the order of records. So the values are looked up one by one, and their places
        are merged. For what an exclusion leaves, this is done if the records that are near do not fill the page.
        """
        name = leading_filter(where, self._dialect) if where.tenant_id is not None else None
        if name is not None:
            parts = by_value(where, name)
            if len(parts) == 1:
                return self._found(self._rows_statement, where, limit, is_led=True)
            return self._merged(parts, limit)
        if where.tenant_id is None or by_value_left(where, lambda _: ()) is None:
            return self.all_rows(where, limit)
        period = RecordFilter(tenant_id=where.tenant_id, since_ns=where.since_ns, until_ns=where.until_ns)
        near = self._found(self._places_statement, period, NEAR * limit)
        rows = self._chosen(near, where, limit)
        if len(near) < NEAR * limit or len(rows) == limit:
            return rows
        return self._merged(by_value_left(where, lambda each: self._present(each, where)) or (), limit)

    def _merged(self, parts: Sequence[RecordFilter], limit: int) -> Sequence[Row]:
        found = chain.from_iterable(self._found(self._places_statement, part, limit, is_led=True) for part in parts)
        return self._chosen(sorted(found, reverse=self._is_descending)[:limit], None, limit)

    def _found(self, name: str, where: RecordFilter, limit: int, *, is_led: bool = False) -> Sequence[Row]:
        conditions, values = conditions_of(where, self._dialect, is_led=is_led)
        return list(self._execute(name, {**values, **self._bounds, "limit": limit}, conditions))

    def _chosen(self, places: Sequence[Row], where: RecordFilter | None, limit: int) -> Sequence[Row]:
        conditions, values = conditions_of(where or RecordFilter(), self._dialect)
        values |= {**self._bounds, "limit": limit, "places": msgspec.json.encode(places).decode()}
        return list(self._execute(self._rows_statement, values, [self._dialect.chosen, *conditions]))

    def _present(self, name: str, where: RecordFilter) -> Sequence[str]:
        """Return the values of a column that records of the tenant have, by one step in its index each."""
        present: list[str] = []
        behind: str | None = ""
        while behind is not None:
            ((behind,),) = self._execute(f"next_{name}", {"tenant_id": where.tenant_id, "behind": behind})
            present += [] if behind is None else [behind]
        return present
