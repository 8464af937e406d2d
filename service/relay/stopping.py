"""When a relay that stops has done its part, decided from what it sees of the backlog, and what it leaves behind."""

from collections.abc import Sequence

import msgspec

from service.errors import AuditraceError
from service.ports import Lag, Outbox
from service.relay.patience import Patience
from service.relay.state import RelayState


class Drained(msgspec.Struct, frozen=True):
    """What became of the records that a relay was to deliver before it ended.

    `delivered` and `parked` count what this relay did. `left` are the streams with undelivered records, those that
    other relays hold included; None when the database cannot tell. `reason` says why it ended before all that it was
    to deliver was delivered; None when it was.
    """

    address: str
    delivered: int
    parked: int
    left: Sequence[Lag] | None
    reason: str | None


def left_in(outbox: Outbox) -> Sequence[Lag] | None:
    """Return the streams with undelivered records; None when the database cannot tell."""
    try:
        return outbox.backlog()
    except AuditraceError:
        return None


def reason_of(state: RelayState, left: Sequence[Lag] | None, patience: Patience) -> str:
    """Return why a relay ends before all was delivered."""
    if patience.is_stopped:
        return "a stop was asked for"
    if state.error is not None:
        return state.error
    if any(lag.is_elsewhere for lag in left or ()):
        return "another relay holds them and does not go on; its lease ends by itself within ten seconds"
    return "nothing of them could be delivered"


class LastDelivery:
    """What has to be delivered before a relay ends, by itself or by others; it begins with the first look.

    That is what was committed by the first look, and of streams that are closed by now everything: they belong to
    processes that stop too, whose last records may come after it. An open stream belongs to a process that goes on,
    so that what is added to it keeps nobody from stopping.

    What another relay holds is left to it once it is seen to live: its lease was taken or renewed since it was first
    seen, which takes a living relay two seconds at most. One that goes on delivers it, and one that stops looks again
    after it has given its leases back. A lease that nobody renews ends within ten seconds, and can be taken over then.
    """

    def __init__(self) -> None:
        self._goal: dict[str, int] | None = None
        self._leases: dict[str, int] = {}

    def is_due(self, backlog: Sequence[Lag], *, is_idle: bool) -> bool:
        """Tell whether nothing is left to this relay.

        Args:
            backlog: as it is now.
            is_idle: nothing could be taken before: what this relay may take are checkpoints that wait for others.
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
