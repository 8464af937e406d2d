"""Sends hints to other processes that something was committed, and receives theirs; nothing depends on their arrival.

Hints are sent outside of the lanes' transactions, because commits that notify wait for each other.
"""

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Final

import psycopg

from service.errors import AuditraceError
from service.store.postgres.connection import Session, connect, translate
from service.store.postgres.statements import SQL

_log = logging.getLogger(__name__)

_AGAIN_S: Final = 2.0
# All commits within this time are one hint.
_SETTLE_S: Final = 0.02


class Wakeups:
    """One thread with its own session, which sends the hints of this process and calls back for those of others."""

    def __init__(self, url: str, on_hint: Callable[[], None]) -> None:
        """Start the thread; `on_hint` is called on it, and must not raise or block."""
        self._url = url
        self._on_hint = on_hint
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = threading.Event()
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="wakeups", daemon=True)
        self._thread.start()

    def hint(self) -> None:
        """Send a hint that something was committed. Never blocks."""
        try:
            os.write(self._writing, b".")
        except BlockingIOError:
            # The pipe is full of unsent hints: one more is not needed.
            return

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._pause.set()
        self.hint()
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                session = connect(self._url)
                try:
                    self._exchange(session)
                finally:
                    session.close()
            except psycopg.Error as error:
                _log.warning("hints are neither sent nor received for now: %s", translate(error))
            except AuditraceError as error:
                _log.warning("hints are neither sent nor received for now: %s", error)
            self._pause.wait(_AGAIN_S)

    def _exchange(self, session: Session) -> None:
        ((own,),) = session.execute(SQL["own_pid"]).fetchall()
        session.execute(SQL["listen"])
        # Something may have been committed before this session listened.
        self._on_hint()
        while not self._stopping.is_set():
            ready, _, _ = select.select([session.fileno(), self._reading], [], [])
            if self._reading in ready:
                self._pause.wait(_SETTLE_S)
                os.read(self._reading, 65536)
                session.execute(SQL["hint"])
            if any(notify.pid != own for notify in session.notifies(timeout=0)):
                self._on_hint()
