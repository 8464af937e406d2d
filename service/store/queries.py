"""Named SQL: every statement of a store is in its `queries.sql`, after a line `-- name: <name>`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


Row: TypeAlias = tuple[Any, ...]


class Execute(Protocol):
    """Executes a named statement of one store in the open transaction, and returns its rows."""

    def __call__(
        self, name: str, values: Mapping[str, object], conditions: Sequence[str] | None = None, /
    ) -> Iterable[Row]:
        """Execute it with `values`; `conditions`, with placeholders like `:name`, replace its `{where}`."""
        ...


def load_queries(package: str) -> Mapping[str, str]:
    """Return the statements of the `queries.sql` beside `package`, by name.

    Raises:
        ValueError: a name occurs twice.
    """
    text = files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    names, statements = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"a query of {package} is named twice")
    return MappingProxyType({name: sql.strip() for name, sql in zip(names, statements, strict=True)})


def with_conditions(statement: str, conditions: Sequence[str]) -> str:
    """Return a statement with the conditions in place of `{where}`."""
    return statement.replace("{where}", " AND ".join(conditions) or "true")


def one(rows: Iterable[Row]) -> Row | None:
    """Return the row of a statement that returns at most one; None if there is none."""
    found = list(rows)
    return found[0] if found else None
