"""Which kind of database a URL names; the code for the other kind is not loaded."""

from service.bootstrap.database import Database
from service.store.urls import is_postgres


def database_of(url: str) -> Database:
    """Return the database that a URL names.

    Raises:
        SettingsError: it is neither `sqlite:///path` nor `postgresql://…`.
    """
    if is_postgres(url):
        from service.bootstrap.postgres import PostgresDatabase

        return PostgresDatabase(url)
    from service.bootstrap.sqlite import SqliteDatabase

    return SqliteDatabase(url)
