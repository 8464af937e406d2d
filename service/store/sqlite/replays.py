"""What was delivered from a SQLite file, in the order of positions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from service.store.queries import Execute
from service.store.replays import LedgerReplays, ReplayPlace
from service.store.sqlite.connection import connect
from service.store.sqlite.statements import SQL, executing

T = TypeVar("T")


class _Place(ReplayPlace, frozen=True, kw_only=True):
    position: int = 0


class SqliteReplays(LedgerReplays[_Place]):
    """Implements `service.ports.Replays` on a connection of its own."""

    def __init__(self, path: Path, sink: str) -> None:
        super().__init__(sink, _Place())
        self._connection = connect(path)
        self._connection.execute(SQL["relaxed"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _run(self, work: Callable[[Execute], T]) -> T:
        # Else a sink would be filled from a file that is not the database any more.
        with self._connection.in_place() as connection:
            return work(executing(connection))

    def _place_at(self, ordered_by: int, stream_id: str) -> _Place:
        del stream_id
        return _Place(position=ordered_by)

    def _behind(self, place: _Place) -> Mapping[str, object]:
        return {"behind": place.position}
