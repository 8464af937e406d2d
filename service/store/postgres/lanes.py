"""The lanes of a process on PostgreSQL: a few, which commit at the same time."""

from typing import Final

import psycopg
from psycopg import errors

from service.errors import LedgerBusyError
from service.store.lanes import GroupRules, Lanes
from service.store.postgres.connection import translate
from service.store.postgres.session import PostgresSession
from service.store.postgres.transaction import PostgresTransaction
from service.store.rollback_guard import RollbackGuard
from service.store.streams import StreamSettings
from service.store.writing import OvertakenError

LANES: Final = 4
MAX_GROUP: Final = 64
"""With more savepoints in one transaction, every other session would have to look them up on disk."""


class PostgresLanes(Lanes[PostgresTransaction]):
    """Implements `service.ports.Ledger` for one process."""

    def __init__(self, settings: StreamSettings, url: str, count: int = LANES) -> None:
        rollback_guard = RollbackGuard()
        sessions = [PostgresSession(settings, url, rollback_guard) for _ in range(count)]
        super().__init__(settings, sessions, _RULES, rollback_guard)
        self.url = url


def _translated(error: Exception) -> Exception:
    if isinstance(error, OvertakenError):
        return LedgerBusyError("others did the same at the same time, again and again: try later")
    return translate(error) if isinstance(error, psycopg.Error) else error


_RULES: Final = GroupRules(
    max_group=MAX_GROUP,
    rounds=3,
    translate=_translated,
    retried=(LedgerBusyError,),
    in_the_way=(
        OvertakenError,
        errors.LockNotAvailable,
        errors.DeadlockDetected,
        errors.SerializationFailure,
        errors.UniqueViolation,
    ),
    ends_the_group=(errors.DeadlockDetected, errors.SerializationFailure),
)
