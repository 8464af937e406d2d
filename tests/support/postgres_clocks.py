"""Clocks that a PostgreSQL ledger and a test share."""

import threading
import time

from service.store.postgres.connection import connect

_CLOCK = """
CREATE SEQUENCE test_clock MINVALUE 0;
SELECT setval('test_clock', {start_us});
CREATE OR REPLACE FUNCTION ledger_now_ns() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT ({now_us}) * 1000 FROM test_clock $$;
GRANT SELECT ON test_clock TO PUBLIC;
"""


class LedgerClock:
    """A clock that database and test share; moves by a microsecond a reading here, and as far as a test says."""

    def __init__(self, url: str, start_ns: int = 1_767_323_045_000_000_000) -> None:
        # A sequence, because what it holds is seen at once by all transactions.
        self._session = connect(url)
        self._session.execute(_CLOCK.format(start_us=start_ns // 1000, now_us="last_value").encode())

    def __call__(self) -> int:
        """Return nanoseconds since the epoch."""
        ((now_us,),) = self._session.execute("SELECT nextval('test_clock')").fetchall()
        return int(now_us) * 1000

    def advance(self, seconds: float) -> None:
        """Step the clock, back if negative."""
        by_us = int(seconds * 1e6)
        self._session.execute("SELECT setval('test_clock', last_value + %s) FROM test_clock", [by_us])

    @property
    def now_ns(self) -> int:
        """The time that it shows, without moving it."""
        ((now_us,),) = self._session.execute("SELECT last_value FROM test_clock").fetchall()
        return int(now_us) * 1000

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class RunningLedgerClock:
    """A clock that database and test share, which passes as time does; a test makes it jump ahead."""

    def __init__(self, url: str) -> None:
        self._session = connect(url)
        passing = "last_value + (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        self._session.execute(_CLOCK.format(start_us=0, now_us=passing).encode())
        self._offset_ns = 0
        self._last_ns = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Return nanoseconds since the epoch, never the same twice."""
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns() + self._offset_ns)  # noqa: TID251 - the database's own clock
            return self._last_ns

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        with self._lock:
            self._offset_ns += int(seconds * 1e6) * 1000
            self._session.execute("SELECT setval('test_clock', %s)", [self._offset_ns // 1000])

    def close(self) -> None:
        """Close the session."""
        self._session.close()
