"""The sessions of a process beside those of its lanes: a few, opened when needed, each for one thread at a time."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg import IsolationLevel
from typing_extensions import override

from service.errors import LedgerBusyError, LedgerUnavailableError
from service.store.connections import Transactions
from service.store.postgres.connection import Session, connect_again, translated
from service.store.postgres.pooling import OF_OTHER_SESSIONS
from service.store.postgres.statements import executing
from service.store.queries import Execute

R = TypeVar("R")

SESSIONS: Final = 8
TIMEOUT_S: Final = 5.0


class SessionPool(Transactions):
    """At most `size` sessions; a caller that finds no free session waits for at most `timeout_s` seconds."""

    def __init__(
        self,
        url: str,
        *,
        read_only: bool,
        size: int = SESSIONS,
        timeout_s: float = TIMEOUT_S,
        prepare: bytes | None = None,
    ) -> None:
        """Make a pool without sessions; `prepare` is executed on each new one."""
        self._url = url
        self._prepare = prepare
        self._read_only = read_only
        self._size = size
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._idle: list[Session] = []
        self._out = 0

    @override
    def close(self) -> None:
        # Sessions that are in use are closed when they come back.
        with self._changed:
            self._size = 0
            self._forget_idle()
            self._changed.notify_all()

    @override
    def run(self, work: Callable[[Execute], R]) -> R:
        return self._with_session(lambda session: work(executing(session)))

    @override
    def read(self, work: Callable[[Execute], R]) -> R:
        def read(session: Session) -> R:
            session.isolation_level = IsolationLevel.REPEATABLE_READ
            with session.transaction():
                return work(executing(session))

        return self._with_session(read)

    @override
    def write(self, work: Callable[[Execute], R]) -> R:
        def write(session: Session) -> R:
            session.isolation_level = None
            with session.transaction():
                return work(executing(session))

        return self._with_session(write)

    def _with_session(self, task: Callable[[Session], R]) -> R:
        """Run `task` and return its result; if the connection turns out to be lost, run it once more on a new one."""
        with translated():
            with self._session() as session:
                try:
                    return task(session)
                except OF_OTHER_SESSIONS:
                    session.close()
                except psycopg.OperationalError:
                    if not session.closed:
                        raise
            with self._changed:
                # The other idle sessions are likely to be lost too.
                self._forget_idle()
            with self._session() as session:
                return task(session)

    @contextmanager
    def _session(self) -> Generator[Session]:
        session = self._take()
        try:
            if session is None or session.closed:
                session = connect_again(self._url, read_only=self._read_only, lock_timeout="1s")
                if self._prepare is not None:
                    session.execute(self._prepare)
            yield session
        finally:
            self._give_back(session)

    def _take(self) -> Session | None:
        deadline = time.monotonic() + self._timeout_s
        with self._changed:
            while self._out >= self._size:
                if not self._size:
                    raise LedgerUnavailableError("the ledger cannot be used: its sessions are closed")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise LedgerBusyError("too many reads at the same time: try again")
            self._out += 1
            return self._idle.pop() if self._idle else None

    def _give_back(self, session: Session | None) -> None:
        with self._changed:
            self._out -= 1
            if session is not None and not session.closed:
                self._idle.append(session)
            if not self._size:
                self._forget_idle()
            self._changed.notify()

    def _forget_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
