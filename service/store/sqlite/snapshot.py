"""Reads every committed record of one snapshot of the database, as the verifier takes them."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from service.store.sqlite.statements import SQL
from service.store.sqlite.untouched import Reading, in_use
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row


def recorded(path: Path, reading: Reading = in_use) -> Iterator[Found]:
    """Yield what would be delivered of every record, and what is shown of it where that differs.

    The place is the file and the record's position in it. One snapshot is read, so writers do not disturb it.

    Raises:
        TryLaterError: the database cannot be read.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        yield from records_in(connection, str(path))


def records_in(connection: sqlite3.Connection, source: str) -> Iterator[Found]:
    """Yield the same of the snapshot that is open on a connection; `source` is what places name as their file."""
    for position, body, otlp, resource, _ in connection.execute(SQL["all_records"]):
        yield from found_in_row(body, otlp, resource, SourcePlace(source, position))
