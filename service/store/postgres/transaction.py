"""The open transaction of a PostgreSQL lane, as far as it differs from that of SQLite."""

from collections.abc import Mapping

import psycopg
from typing_extensions import override

from service.store.writing import LedgerTransaction


class PostgresTransaction(LedgerTransaction):
    """A transaction that has begun on a session, at a time of the database's clock.

    A job that was read is locked until the end, so that decisions about it are still right when they are written.
    """

    violation = psycopg.errors.UniqueViolation
    nul_as = "\ufffd"
    locking_job = "locked_job"

    @override
    def wait_for_jobs(self, *, is_patient: bool) -> None:
        self.locking_job = "awaited_job" if is_patient else "locked_job"

    def _by_lease_clock(self, time_ns: int) -> int:
        # For all machines, the clock of the database decides about leases.
        return self.now_ns + (time_ns - self._clock())

    def _is_number_taken(self, error: Exception, values: Mapping[str, object]) -> bool:
        del values
        return isinstance(error, psycopg.Error) and error.diag.constraint_name != "audit_record_keys_pkey"
