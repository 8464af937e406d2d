"""What PostgreSQL reads for a query: its plan, as it was really carried out."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from service.store.postgres.statements import executing


class Explaining:
    """A session that explains what it executes, by really executing it."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self._session = session
        self.plans: list[Mapping[str, Any]] = []

    def execute(self, sql: bytes, values: Any = None, **more: Any) -> Any:
        """Execute, and keep the plan of a statement that reads."""
        if sql.lstrip().startswith((b"SELECT", b"WITH", b"--")) and b"pg_advisory" not in sql:
            explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql
            with self._session.transaction(force_rollback=True):
                ((plan,),) = self._session.execute(explain, values).fetchall()
            self.plans.append(plan[0]["Plan"])
        return self._session.execute(sql, values, **more)

    def transaction(self) -> Any:
        """Begin a transaction."""
        return self._session.transaction()


class _Connections:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, work: Any) -> Any:
        """Do the work on the one session that there is."""
        return work(executing(self._session))


def explained(session: psycopg.Connection[Any], target: Any, method: str, *arguments: Any) -> Mapping[str, Any]:
    """Return the plan of the last statement by which a method of a part of the store reads."""
    return all_explained(session, target, method, *arguments)[-1]


def all_explained(
    session: psycopg.Connection[Any], target: Any, method: str, *arguments: Any
) -> Sequence[Mapping[str, Any]]:
    """Return the plans of all statements by which a method of a part of the store reads."""
    explaining = Explaining(session)
    (name,) = (name for name in vars(target) if name.startswith("_connection"))
    own = getattr(target, name)
    setattr(target, name, _Connections(explaining))
    try:
        getattr(target, method)(*arguments)
    finally:
        setattr(target, name, own)
    return explaining.plans


def buffers(plan: Mapping[str, Any]) -> int:
    """Return how many pages of 8 KiB were touched."""
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
