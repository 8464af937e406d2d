"""What was delivered from a PostgreSQL database, in the order of time."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from service.store.postgres.pool import SessionPool
from service.store.postgres.statements import SQL, executing
from service.store.queries import Execute
from service.store.replays import LedgerReplays, ReplayPlace

T = TypeVar("T")


class _Place(ReplayPlace, frozen=True, kw_only=True):
    observed_ns: int = 0
    stream_id: str = ""


class PostgresReplays(LedgerReplays[_Place]):
    """Implements `service.ports.Replays` on a session of its own."""

    def __init__(self, url: str, sink: str) -> None:
        super().__init__(sink, _Place())
        self._pool = SessionPool(url, read_only=False, size=1, prepare=SQL["relaxed"])

    def close(self) -> None:
        """Close the session."""
        self._pool.close()

    def _run(self, work: Callable[[Execute], T]) -> T:
        return self._pool.run(lambda session: work(executing(session)))

    def _place_at(self, ordered_by: int, stream_id: str) -> _Place:
        return _Place(observed_ns=ordered_by, stream_id=stream_id)

    def _behind(self, place: _Place) -> Mapping[str, object]:
        return {"observed_ns": place.observed_ns, "stream_id": place.stream_id}
