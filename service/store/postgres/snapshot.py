"""Opens one snapshot of a PostgreSQL database, to read the whole database."""

from collections.abc import Generator
from contextlib import closing, contextmanager

from psycopg import IsolationLevel

from service.store.postgres.connection import Session, connect, translated


@contextmanager
def snapshot(url: str) -> Generator[Session]:
    """Open a session without time limits, with a transaction that sees one snapshot, which later writes do not change.

    Raises:
        TryLaterError: the database cannot be read.
    """
    with closing(connect(url, read_only=True, statement_timeout="0", idle_timeout="0")) as session:
        session.isolation_level = IsolationLevel.REPEATABLE_READ
        with translated(), session.transaction():
            yield session
