"""Reads of a PostgreSQL database, on read-only sessions of their own."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.store.postgres.listing_horizon import horizon_ns
from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import searching
from service.store.queries import Execute, Search
from service.store.reading import LedgerReads
from service.store.rows import Stored

T = TypeVar("T")


class PostgresReads(LedgerReads):
    """Implements `service.ports.Reads`; records are ordered by their observed time, up to the listing horizon."""

    order = ("ns", "id")
    start = (0, "")
    cursor = tuple[Stored, str]
    cursor_and_newest = tuple[Stored, str, Stored]

    def __init__(self, url: str) -> None:
        self._pool = SessionPool(url, read_only=True)

    def close(self) -> None:
        """Close the sessions; nobody may read any more."""
        self._pool.close()

    def _search(self, read: Callable[[Search], T]) -> T:
        return self._pool.run(lambda session: read(searching(session)))

    def _newest(self, execute: Execute) -> int:
        return horizon_ns(execute)

    def _behind(self, newest: int) -> Sequence[int | str]:
        return (newest, "")
