"""Decides from the backlog when a stopping relay is done, and says what it leaves behind."""

from collections.abc import Sequence

import msgspec

from service.errors import AuditraceError
from service.ports import Lag, Outbox
from service.relay.stall_timeout import StallTimeout
from service.relay.state import RelayState


class Drained(msgspec.Struct, frozen=True):
    """The result of delivering what was committed before an end.

    `delivered` and `parked` count the records of this relay. `left` are the streams with undelivered records, also
    those that other relays hold; None when the database cannot be read. `reason` says why it ended before this relay
    had delivered its records; None when it had.
    """

    address: str
    delivered: int
    parked: int
    left: Sequence[Lag] | None
    reason: str | None


def left_in(outbox: Outbox) -> Sequence[Lag] | None:
    """Return the streams with undelivered records; None when the database cannot be read."""
    try:
        return outbox.backlog()
    except AuditraceError:
        return None


def reason_of(state: RelayState, left: Sequence[Lag] | None, timeout: StallTimeout) -> str:
    """Return why a relay ends before all was delivered."""
    if timeout.is_stopped:
        return "a stop was asked for"
    if state.error is not None:
        return state.error
    if any(lag.is_elsewhere for lag in left or ()):
        return "another relay holds them and does not go on; its lease ends by itself within ten seconds"
    return "nothing of them could be delivered"


class LastDelivery:
    """What has to be delivered before a relay ends, by itself or by others; it begins with the first look.

    These are the records committed by the first look, and all records of closed streams: those belong to processes
    that stop too, and their last records may come later. An open stream belongs to a process that keeps running, so
    that a stop does not wait for what is added to it.

    Records under the lease of another relay are left to that relay once it is known to live: its lease was taken or
    renewed since the first look, which a live relay does within two seconds. If it keeps running, it delivers them. If
    it stops, it looks again after it has released its leases. A lease that nobody renews ends within ten seconds, and
    can be taken over then.
    """

    def __init__(self) -> None:
        self._goal: dict[str, int] | None = None
        self._leases: dict[str, int] = {}

    def is_done(self, backlog: Sequence[Lag], *, is_idle: bool) -> bool:
        """True when nothing is left to this relay.

        Args:
            backlog: as it is now.
            is_idle: the last attempt could take nothing: this relay has at most checkpoints that wait for others.
        """
        if self._goal is None:
            self._goal = {lag.stream_id: lag.committed for lag in backlog}
        left = [lag for lag in backlog if lag.delivered < self._wanted(lag, self._goal)]
        for lag in left:
            self._leases.setdefault(lag.stream_id, lag.until_ns if lag.is_elsewhere else 0)
        others = [lag for lag in left if lag.is_elsewhere]
        if any(self._leases[lag.stream_id] == lag.until_ns for lag in others):
            return False
        return len(others) == len(left) or (is_idle and bool(others))

    @staticmethod
    def _wanted(lag: Lag, goal: dict[str, int]) -> int:
        return lag.committed if lag.is_closed else goal.get(lag.stream_id, 0)
