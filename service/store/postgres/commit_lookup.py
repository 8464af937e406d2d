"""Finds out whether a commit was made whose answer was lost with the connection."""

import logging
import threading
import time
from typing import Final

from service.errors import TryLaterError
from service.store.postgres.connection import connect_again, translated
from service.store.postgres.statements import SQL
from telemetry.audit.chain import Tip

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 3.0


def was_committed(url: str, session_name: str, tip: Tip, timeout_s: float = TIMEOUT_S) -> bool:
    """Tell whether the record at `tip` is committed, for good.

    The session that was to commit is ended first, so that it cannot commit after the look. Then the stream is closed by
    another commit. If standbys must confirm commits, the server answers this one only after they have that record.

    Args:
        url: the database; after a failover, the host that now takes writes.
        session_name: the session that was to commit.
        tip: the last record of its transaction.
        timeout_s: how long to wait for a database that does not answer.

    Raises:
        TryLaterError: the database did not answer in time; nothing is known.
    """
    deadline = time.monotonic() + timeout_s
    pause, pause_s = threading.Event(), _FIRST_PAUSE_S
    while True:
        try:
            return _look(url, session_name, tip)
        except TryLaterError as error:
            if time.monotonic() >= deadline:
                raise
            _log.warning("a commit waits to be looked up: %s", error.detail)
        pause.wait(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _look(url: str, session_name: str, tip: Tip) -> bool:
    session = connect_again(url)
    try:
        with translated():
            for (is_gone,) in session.execute(SQL["end_session"], {"session": session_name}).fetchall():
                if not is_gone:
                    raise TryLaterError("the session that was to commit does not end")
            session.execute(SQL["end_stream"], {"stream_id": tip.stream_id})
            ((is_there,),) = session.execute(SQL["has_record"], {"record_id": tip.record_id}).fetchall()
    finally:
        session.close()
    return bool(is_there)
