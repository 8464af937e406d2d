"""Ends what a database that was set back had begun, so that nothing of it goes on under numbers that were used."""

from collections.abc import Sequence

from service.errors import LedgerBusyError
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.transaction import SQL, SqliteTransaction


def end_streams(transaction: SqliteTransaction, locks: OwnerLocks) -> Sequence[str]:
    """Close every stream but that of the transaction, each where it stands, and return those that were open.

    Raises:
        LedgerBusyError: processes work on the database.
    """
    own = {"own": transaction.tip.stream_id}
    streams = transaction.connection.execute(SQL["open_streams"], own).fetchall()
    at_work = [owner for _, owner, *_ in streams if locks.is_alive(owner)]
    if at_work:
        raise LedgerBusyError(f"{', '.join(at_work)} work on the database: stop every process first")
    transaction.connection.execute(SQL["end_streams"], own)
    return [stream_id for stream_id, *_ in streams]
