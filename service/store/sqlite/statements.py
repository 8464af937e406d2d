"""The statements of this store, by name, as the driver takes them."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from service.store.queries import Execute, Row, load_queries

SQL: Final = load_queries("service.store.sqlite")

# What PostgreSQL does in one statement is several here, divided by a line of its own.
_PARTS: Final[Mapping[str, list[str]]] = {name: text.split("\n;\n") for name, text in SQL.items()}


def executing(connection: sqlite3.Connection) -> Execute:
    """Return what executes statements on `connection`; of several under one name, the last gives the rows."""

    def execute(name: str, values: Mapping[str, object]) -> Iterable[Row]:
        *before, last = _PARTS[name]
        for statement in before:
            connection.execute(statement, values)
        return connection.execute(last, values)

    return execute
