"""Opens one snapshot of a SQLite file for reading as a whole."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.store.opening import records_in
from service.store.sqlite.connection import FileConnection
from service.store.sqlite.statements import executing
from service.store.sqlite.untouched import Reading, in_use
from telemetry.audit.verify import Found


@contextmanager
def snapshot(path: Path, reading: Reading) -> Generator[FileConnection]:
    """Open the file by `reading`, and its snapshot; writers do not disturb it.

    Raises:
        TryLaterError: the file cannot be read.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        yield connection


def recorded(path: Path, reading: Reading = in_use) -> Iterator[Found]:
    """Yield every record of one snapshot, as the verifier takes them."""
    with snapshot(path, reading) as connection:
        yield from records_in(executing(connection), str(path))
