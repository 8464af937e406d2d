"""Which kind of database a URL names."""

from service.bootstrap.database import Database
from service.bootstrap.postgres import PostgresDatabase
from service.bootstrap.sqlite import SqliteDatabase
from service.store.postgres.connection import is_postgres


def database_of(url: str) -> Database:
    """Return the database that a URL names.

    Raises:
        SettingsError: it is neither `sqlite:///path` nor `postgresql://…`.
    """
    return PostgresDatabase(url) if is_postgres(url) else SqliteDatabase(url)
