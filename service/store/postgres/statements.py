"""The named statements for PostgreSQL, as its driver takes them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from service.store.postgres.connection import Session
from service.store.queries import Execute, Row, load_queries, with_conditions

SQL: Final[Mapping[str, bytes]] = MappingProxyType(
    {name: text.encode() for name, text in load_queries("service.store.postgres").items()}
)

# Answers that may be too large for the memory.
_LONG: Final = frozenset({"records_of_stream", "all_records"})
_ROWS_AT_ONCE: Final = 500
_NAMED: Final = re.compile(r":([a-z_0-9]+)")


def executing(session: Session) -> Execute:
    """Return a function that executes statements on `session`; long answers are fetched in parts, in its transaction.

    Answers come in binary form, which is cheapest.
    """

    def execute(name: str, values: Mapping[str, object], conditions: Sequence[str] | None = None, /) -> Iterable[Row]:
        if conditions is not None:
            return session.execute(_restricted(name, conditions), values, binary=True)
        if name in _LONG:
            return _in_parts(session, name, values)
        return session.execute(SQL[name], values, binary=True)

    return execute


def _restricted(name: str, conditions: Sequence[str]) -> bytes:
    named = [_NAMED.sub(r"%(\1)s", condition) for condition in conditions]
    return with_conditions(SQL[name].decode(), named).encode()


def _in_parts(session: Session, name: str, values: Mapping[str, object]) -> Iterable[Row]:
    with session.cursor(name, binary=True) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(SQL[name], values)
        yield from cursor
