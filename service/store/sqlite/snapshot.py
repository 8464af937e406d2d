"""Opens one snapshot of a SQLite file, to read the whole file."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from service.store.sqlite.connection import FileConnection
from service.store.sqlite.untouched import OpenFile


@contextmanager
def snapshot(path: Path, reading: OpenFile) -> Generator[FileConnection]:
    """Open the file with `reading`, and a snapshot of it, which later writes do not change.

    Raises:
        TryLaterError: the file cannot be read.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        yield connection
