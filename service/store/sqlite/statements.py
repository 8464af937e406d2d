"""The named statements for SQLite, as its driver takes them."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from service.store.queries import Execute, Row, load_queries, with_conditions

SQL: Final = load_queries("service.store.sqlite")

# Some statements of PostgreSQL need several statements here, divided by a line with a semicolon.
_PARTS: Final[Mapping[str, list[str]]] = {name: text.split("\n;\n") for name, text in SQL.items()}


def executing(connection: sqlite3.Connection) -> Execute:
    """Return a function that executes statements on `connection`; of several under one name, the last returns rows."""

    def execute(name: str, values: Mapping[str, object], conditions: Sequence[str] | None = None, /) -> Iterable[Row]:
        *before, last = _PARTS[name]
        for statement in before:
            connection.execute(statement, values)
        return connection.execute(last if conditions is None else with_conditions(last, conditions), values)

    return execute
