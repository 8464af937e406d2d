"""Reads of a PostgreSQL database: records are ordered by their observed time, up to the listing horizon."""

from collections.abc import Sequence

from service.store.following import FollowedReads
from service.store.postgres.listing_horizon import horizon_ns
from service.store.postgres.pool import SessionPool
from service.store.queries import Execute
from service.store.rows import Stored


class PostgresReads(FollowedReads):
    """Implements `service.ports.Reads`, on sessions that read only."""

    nul_as = "\ufffd"
    order = ("ns", "id")
    start = (0, "")
    cursor = tuple[Stored, str]
    cursor_and_newest = tuple[Stored, str, Stored]
    cursor_and_record = tuple[Stored, str, str]
    newest_exceeds = 1

    def __init__(self, url: str) -> None:
        super().__init__(SessionPool(url, read_only=True))

    def _newest(self, execute: Execute) -> int:
        return horizon_ns(execute)

    def _behind(self, newest: int) -> Sequence[int | str]:
        return (newest, "")
