"""Opens one snapshot of a PostgreSQL database, to read the whole database."""

from collections.abc import Generator
from contextlib import closing, contextmanager

from psycopg import IsolationLevel

from service.store.postgres.connection import Session, connect, translated


@contextmanager
def snapshot(url: str, *, is_long: bool) -> Generator[Session]:
    """Open a session with a transaction that sees one snapshot, which later writes do not change.

    Args:
        url: the database.
        is_long: without time limits, for reading all of it.

    Raises:
        TryLaterError: the database cannot be read.
    """
    limits = {"statement_timeout": "0", "idle_timeout": "0"} if is_long else {}
    with closing(connect(url, read_only=True, **limits)) as session:
        session.isolation_level = IsolationLevel.REPEATABLE_READ
        with translated(), session.transaction():
            yield session
