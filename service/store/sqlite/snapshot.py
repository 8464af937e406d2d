"""Opens one snapshot of a SQLite file for reading as a whole."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from service.store.sqlite.connection import FileConnection
from service.store.sqlite.untouched import OpenFile


@contextmanager
def snapshot(path: Path, reading: OpenFile) -> Generator[FileConnection]:
    """Open the file by `reading`, and its snapshot; writers do not disturb it.

    Raises:
        TryLaterError: the file cannot be read.
    """
    with reading(path) as connection:
        connection.execute("BEGIN")
        yield connection
