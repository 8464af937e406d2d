"""Reads of a SQLite file: records are ordered by their position, which is the order of commits."""

from collections.abc import Sequence
from pathlib import Path

from service.store.following import FollowedReads
from service.store.queries import Execute
from service.store.rows import Stored
from service.store.sqlite.connections import ThreadConnections
from service.store.sqlite.untouched import OpenFile, in_use


class SqliteReads(FollowedReads):
    """Implements `service.ports.Reads`, each thread on a connection of its own."""

    order = ("position",)
    start = (0,)
    cursor = tuple[Stored]
    cursor_and_newest = tuple[Stored, Stored]
    cursor_and_record = tuple[Stored, str]
    newest_exceeds = 0

    def __init__(self, path: Path, reading: OpenFile = in_use) -> None:
        super().__init__(ThreadConnections(path, reading))

    def _newest(self, execute: Execute) -> int:
        ((position,),) = execute("last_place", {})
        return int(position)

    def _behind(self, newest: int) -> Sequence[int | str]:
        return (newest + 1,)
