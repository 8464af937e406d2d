"""Ends what a database that was set back had begun, so that nothing of it goes on under numbers that were used."""

from collections.abc import Sequence

from service.errors import LedgerBusyError
from service.store.postgres.stream import LEASE_NS
from service.store.postgres.transaction import PostgresTransaction


def end_streams(transaction: PostgresTransaction) -> Sequence[str]:
    """Close every stream but that of the transaction, each where it stands, and return those that were open.

    Raises:
        LedgerBusyError: processes work on the database.
    """
    own = {"own": transaction.tip.stream_id}
    at_work = transaction.execute("streams_at_work", {**own, "lease_ns": LEASE_NS}).fetchall()
    if at_work:
        raise LedgerBusyError(
            f"{len(at_work)} streams are at work: stop every process that works on the database, and try again in 10 s"
        )
    return [str(row[0]) for row in transaction.execute("end_streams", own)]
