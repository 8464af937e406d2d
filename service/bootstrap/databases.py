"""Returns the database that a URL names, without loading the code for the other kind."""

from service.bootstrap.database import Database
from service.store.urls import is_postgres


def database_of(url: str, *, as_it_lies: bool = False) -> Database:
    """Return the database that a URL names.

    Args:
        url: `sqlite:///path` or `postgresql://…`.
        as_it_lies: reading makes and changes no file, so that evidence stays as it is.

    Raises:
        SettingsError: the URL is neither `sqlite:///path` nor `postgresql://…`.
    """
    if is_postgres(url):
        from service.bootstrap.postgres import PostgresDatabase

        return PostgresDatabase(url)
    from service.bootstrap.sqlite import SqliteDatabase

    return SqliteDatabase(url, as_it_lies=as_it_lies)
