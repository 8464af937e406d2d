"""Opens one snapshot of a PostgreSQL database for reading as a whole."""

from collections.abc import Generator
from contextlib import closing, contextmanager

from psycopg import IsolationLevel

from service.store.postgres.connection import Session, connect, translated


@contextmanager
def snapshot(url: str, *, is_long: bool) -> Generator[Session]:
    """Open a session, and a transaction in it that sees one snapshot; writers do not disturb it.

    Args:
        url: the database.
        is_long: without limits of time, for reading all of it.

    Raises:
        TryLaterError: the database cannot be read.
    """
    opened = (
        connect(url, read_only=True, statement_timeout="0", idle_timeout="0")
        if is_long
        else connect(url, read_only=True)
    )
    with closing(opened) as session:
        session.isolation_level = IsolationLevel.REPEATABLE_READ
        with translated(), session.transaction():
            yield session
