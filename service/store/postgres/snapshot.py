"""Reads every committed record of one snapshot of the database, as the verifier takes them."""

from collections.abc import Iterator

from psycopg import IsolationLevel

from service.store.postgres.connection import Session, connect, place_of, translated
from service.store.postgres.statements import executing
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row


def recorded(url: str) -> Iterator[Found]:
    """Yield what would be delivered of every record, and what is shown of it where that differs.

    The place is the database and the record's position in the order of time. One repeatable-read snapshot is read, so
    writers do not disturb it.

    Raises:
        TryLaterError: the database cannot be read.
    """
    session = connect(url, read_only=True, statement_timeout="0", idle_timeout="0")
    try:
        with translated():
            session.isolation_level = IsolationLevel.REPEATABLE_READ
            with session.transaction():
                yield from records_in(session, place_of(url))
    finally:
        session.close()


def records_in(session: Session, name: str) -> Iterator[Found]:
    """Yield the same from an open transaction, whose snapshot is read; `name` is that of the place."""
    for position, (body, otlp, resource, _) in enumerate(executing(session)("all_records", {}), start=1):
        yield from found_in_row(body, otlp, resource, SourcePlace(name, position))
