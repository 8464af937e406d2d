"""The statements of this store, by name, as the driver takes them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from service.store.postgres.connection import Session
from service.store.queries import Execute, Row, load_queries

SQL: Final[Mapping[str, bytes]] = MappingProxyType(
    {name: text.encode() for name, text in load_queries("service.store.postgres").items()}
)

# What may be more than should be in memory at once.
_LONG: Final = frozenset({"records_of_stream", "all_records"})
_ROWS_AT_ONCE: Final = 500


def executing(session: Session) -> Execute:
    """Return what executes statements on `session`, in whose open transaction long answers are fetched in parts."""

    def execute(name: str, values: Mapping[str, object]) -> Iterable[Row]:
        if name not in _LONG:
            return session.execute(SQL[name], values)
        return _in_parts(session, name, values)

    return execute


def _in_parts(session: Session, name: str, values: Mapping[str, object]) -> Iterable[Row]:
    with session.cursor(name, binary=True) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(SQL[name], values)
        yield from cursor
