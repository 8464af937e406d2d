"""What can be said of the relay's deliveries: since when they fail and why; each outage is logged once."""

import logging
from datetime import UTC, datetime

import msgspec

from service.ports import Clock

_log = logging.getLogger(__name__)


class RelayState(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery is: `error` says what keeps records here since `failing_since_ns`; both None while they flow."""

    address: str
    error: str | None = None
    failing_since_ns: int | None = None
    failures: int = 0
    """Failed attempts in a row."""
    pause_s: float = 0.0
    """How long the last failure delays the next attempt."""
    parked: int = 0
    """Records that are parked, whoever parked them."""

    @property
    def text(self) -> str:
        """What readiness says of it; empty while all records flow."""
        parts: list[str] = []
        if self.failing_since_ns is not None:
            since = datetime.fromtimestamp(self.failing_since_ns // 1_000_000_000, UTC)
            parts.append(f"records are held since {since:%Y-%m-%dT%H:%M:%SZ}, {self.address}: {self.error}")
        if self.parked:
            records = "record is" if self.parked == 1 else "records are"
            parts.append(f"{self.parked} {records} parked: see `auditrace relay --retry-parked`")
        return "; ".join(parts)


class Progress:
    """Keeps the state; written by the relay's thread, read by any."""

    def __init__(self, address: str, clock: Clock) -> None:
        self._clock = clock
        self._kinds: set[str] = set()
        self._has_ended = False
        self.state = RelayState(address=address)

    def gets_on(self) -> None:
        """Something was delivered during an outage; whether it is over will show."""
        self.state = msgspec.structs.replace(self.state, failures=0, pause_s=0.0)

    def flows(self, left: int) -> None:
        """An outage is over, with so many records still to be delivered."""
        state = self.state
        if state.failing_since_ns is None:
            return
        away_s = max(0, self._clock() - state.failing_since_ns) / 1e9
        _log.warning(
            "audit records are delivered again to %s, after %.0f s; %d are left to deliver", state.address, away_s, left
        )
        self._kinds.clear()
        self.state = RelayState(address=state.address, parked=state.parked)

    def fails(self, kind: str, error: str, pause_s: float) -> bool:
        """An attempt failed; logged, and True, when none of this outage failed for this kind of reason before."""
        state = self.state
        is_news = kind not in self._kinds and not self._has_ended
        if is_news:
            _log.error("audit records are held, and sent to %s until they are delivered: %s", state.address, error)
        self._kinds.add(kind)
        since_ns = self._clock() if state.failing_since_ns is None else state.failing_since_ns
        self.state = RelayState(
            address=state.address,
            error=error,
            failing_since_ns=since_ns,
            failures=state.failures + 1,
            pause_s=pause_s,
            parked=state.parked,
        )
        return is_news

    def end(self) -> None:
        """Database and sink are closed: what fails from now on is no news."""
        self._has_ended = True

    def parks(self, parked: int) -> None:
        """So many records are parked now."""
        if parked != self.state.parked:
            self.state = msgspec.structs.replace(self.state, parked=parked)
