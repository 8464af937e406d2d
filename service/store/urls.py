"""Which kind of database a URL names, told without loading the code of either."""

from typing import Final

_POSTGRES: Final = ("postgresql://", "postgres://")


def is_postgres(url: str) -> bool:
    """Tell whether a database URL names a PostgreSQL."""
    return url.startswith(_POSTGRES)
