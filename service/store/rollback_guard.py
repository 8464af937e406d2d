"""Remembers what a process saw committed, to find out that the database was set back.

A restore while the process runs, or a failover to a lagging standby, removes the last commits. A process that continues
after that would use numbers of checkpoints a second time, and sign that streams end before records that were delivered.
"""

import threading

from service.errors import BrokenLedgerError
from service.store.anchors import StoredCheckpoint
from service.store.queries import Execute
from telemetry.audit.chain import Tip


class RollbackGuard:
    """Remembers the newest checkpoint, and the tips of streams whose connection was lost; any thread may use it.

    It does not know what other processes committed after the newest checkpoint.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checkpoint: StoredCheckpoint | None = None
        self._tips: dict[str, Tip] = {}

    def saw_checkpoint(self, last: StoredCheckpoint | None) -> None:
        """Remember a committed checkpoint, if it is newer."""
        with self._lock:
            if last is not None and (self._checkpoint is None or last.number > self._checkpoint.number):
                self._checkpoint = last

    def lost_sight(self, tip: Tip) -> None:
        """Remember the last committed record of a stream, until `require_all` finds it in the database."""
        with self._lock:
            self._tips[tip.stream_id] = tip

    def require_all(self, execute: Execute) -> None:
        """Look for everything that is remembered; a record that was found once is not looked for again.

        Raises:
            BrokenLedgerError: something is gone; every later call raises too, until the process ends.
        """
        with self._lock:
            checkpoint, tips = self._checkpoint, list(self._tips.values())
        if checkpoint is not None and [checkpoint.hash] != [
            row[0] for row in execute("hash_of_checkpoint", {"number": checkpoint.number})
        ]:
            raise _set_back(f"checkpoint {checkpoint.number}")
        for tip in tips:
            ((is_there,),) = execute("has_record", {"record_id": tip.record_id})
            if not is_there:
                raise _set_back(f"record {tip.number} of stream {tip.stream_id}")
        with self._lock:
            for tip in tips:
                if self._tips.get(tip.stream_id) == tip:
                    del self._tips[tip.stream_id]


def _set_back(what: str) -> BrokenLedgerError:
    return BrokenLedgerError(
        f"{what} was there, and is gone: the database was set back; stop every process that works on it and run "
        "auditrace migrate --after-restore"
    )
