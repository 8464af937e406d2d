"""Tells which kind of database a URL names, without loading the code of either store."""

from typing import Final

_POSTGRES: Final = ("postgresql://", "postgres://")


def is_postgres(url: str) -> bool:
    """Tell whether a database URL names a PostgreSQL database."""
    return url.startswith(_POSTGRES)
