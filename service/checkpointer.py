"""Writes checkpoints on schedule: holds the lease, writes each interval, and reports the state of the checkpoints."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from service.loop import Loop
from service.outage import Outage
from service.ports import CheckpointWriter, Clock, LastCheckpoint, RefusedStream

_log = logging.getLogger(__name__)

RENEW_S: Final = 2.0
"""How often the lease is taken or renewed; it ends 10 s after the last renewal."""


class CheckpointerState(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoints of the deployment, as this process saw them last.

    `number` and `age_s` are those of the last checkpoint of any process; None when there is none yet.
    `error` is the failure of the last turn of this process; None when it did not fail.
    """

    number: int | None
    age_s: float | None
    refused: Sequence[RefusedStream]
    error: str | None
    is_writer: bool


class Checkpointer:
    """A process's checkpoint thread. Of all processes one at a time writes; the others stand by.

    It writes a checkpoint when it has taken the lease, and then one each interval, also when nothing was committed.
    When the ledger is busy or away, it tries again at the next renewal; the thread never ends for that.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        interval_s: float,
        clock: Clock,
        monotonic: Callable[[], float],
        renew_s: float = RENEW_S,
    ) -> None:
        self._writer = writer
        self._interval_s = interval_s
        self._clock = clock
        self._monotonic = monotonic
        self._renew_s = renew_s
        self._due = 0.0
        self._is_writer = False
        self._last: LastCheckpoint | None = None
        self._refused: Sequence[RefusedStream] = ()
        self._outage = Outage(_log, "checkpoints are held up, trying on", "checkpoints are written again")
        self._loop = Loop("checkpointer", self._turn)

    def start(self) -> None:
        """Start to hold the lease and to write."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread, after the checkpoint that it is writing.

        It keeps the lease, because the last checkpoint comes after the lanes are closed: close them after this, with
        `CheckpointWriter.write_last`.
        """
        self._loop.stop()

    def state(self) -> CheckpointerState:
        """Return what the last turn saw; works while the database is away, because it reads nothing."""
        last = self._last
        return CheckpointerState(
            number=None if last is None else last.number,
            age_s=None if last is None else max(0, self._clock() - last.observed_ns) / 1e9,
            refused=self._refused,
            error=self._outage.problem,
            is_writer=self._is_writer,
        )

    def _turn(self) -> None:
        # It looks also when it could not write: another process may have written.
        self._outage.attempt(self._hold_and_write, self._look)
        self._loop.rest(self._pause_s())

    def _hold_and_write(self) -> None:
        holds = False
        try:
            holds = self._writer.hold()
            if holds and not (self._is_writer and self._monotonic() < self._due):
                holds = self._write()
        finally:
            self._is_writer = holds

    def _write(self) -> bool:
        """Write a checkpoint; True while this process still holds the lease."""
        # The interval begins before writing, so that slow writing does not lengthen it; after a failure it stays due.
        self._due = now = self._monotonic()
        written = self._writer.write()
        if written is None:
            return False
        self._due = now + self._interval_s
        for stream_id in written.closed:
            _log.warning("stream %s was left open by a process that is gone: closed", stream_id)
        return True

    def _look(self) -> None:
        last = self._writer.last()
        refused = self._writer.refused()
        for one in refused:
            if one not in self._refused:
                _log.error("stream %s is not signed over: %s", one.stream_id, one.reason)
        # In this order: a reader that sees a checkpoint also sees what it refused.
        self._refused = refused
        self._last = last

    def _pause_s(self) -> float:
        if not self._is_writer:
            return self._renew_s
        due_in_s = self._due - self._monotonic()
        return self._renew_s if due_in_s <= 0 else min(self._renew_s, due_in_s)
