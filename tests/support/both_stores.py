"""The two stores as one contract sees them."""

from typing import TypeAlias

from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore

Store: TypeAlias = SqliteStore | PostgresStore
"""What a test of the contract is written against."""

SQLITE, POSTGRES = SqliteStore.kind, PostgresStore.kind
BOTH = (SQLITE, POSTGRES)
