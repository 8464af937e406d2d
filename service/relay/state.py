"""The state of a relay's deliveries: since when they fail, and why; each outage is logged once."""

import logging
from datetime import UTC, datetime

import msgspec

from service.ports import Clock
from service.relay.backoff import Pause
from telemetry.delivery.answers import Refused, Rejected, Unreachable

_log = logging.getLogger(__name__)


class RelayState(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is the last reason why records are held since `failing_since_ns`; both None while deliveries succeed."""

    address: str
    error: str | None = None
    failing_since_ns: int | None = None
    failures: int = 0
    """Failed attempts in a row."""
    pause_s: float = 0.0
    """How long the last failure delays the next attempt."""
    parked: int = 0
    """Parked records, of all relays."""

    @property
    def text(self) -> str:
        """The text for readiness; empty while deliveries succeed and nothing is parked."""
        parts: list[str] = []
        if self.failing_since_ns is not None:
            since = datetime.fromtimestamp(self.failing_since_ns // 1_000_000_000, UTC)
            parts.append(f"records are held since {since:%Y-%m-%dT%H:%M:%SZ}, {self.address}: {self.error}")
        if self.parked:
            records = "record is" if self.parked == 1 else "records are"
            parts.append(f"{self.parked} {records} parked: see `auditrace relay --retry-parked`")
        return "; ".join(parts)


class DeliveryProgress:
    """Keeps the state; written by the relay's thread, read by any."""

    def __init__(self, address: str, clock: Clock, pause: Pause) -> None:
        self._clock = clock
        self._pause = pause
        self._kinds: set[str] = set()
        self._has_ended = False
        self.state = RelayState(address=address)

    def progressed(self) -> None:
        """Note that something was delivered during an outage, which may go on."""
        self.state = msgspec.structs.replace(self.state, failures=0, pause_s=0.0)

    def recovered(self, left: int) -> None:
        """Note that an outage is over, with so many records still to be delivered."""
        state = self.state
        if state.failing_since_ns is None:
            return
        away_s = max(0, self._clock() - state.failing_since_ns) / 1e9
        _log.warning(
            "audit records are delivered again to %s, after %.0f s; %d are left to deliver", state.address, away_s, left
        )
        self._kinds.clear()
        self.state = RelayState(address=state.address, parked=state.parked)

    def failed(self, kind: str, error: str, retry_after_s: float | None = None) -> bool:
        """Note that an attempt failed; logged, and True, when it is the first of its kind in this outage."""
        state = self.state
        is_first = kind not in self._kinds and not self._has_ended
        if is_first:
            _log.error("audit records are held, and sent to %s until they are delivered: %s", state.address, error)
        self._kinds.add(kind)
        failures = state.failures + 1
        self.state = msgspec.structs.replace(
            state,
            error=error,
            failing_since_ns=self._clock() if state.failing_since_ns is None else state.failing_since_ns,
            failures=failures,
            pause_s=self._pause(failures, retry_after_s),
        )
        return is_first

    def held(self, answer: Refused | Rejected | Unreachable) -> bool:
        """Note that an attempt failed with this answer of the sink; returns what `failed` does."""
        retry_after_s = answer.retry_after_s if isinstance(answer, Refused) else None
        return self.failed(answer.error_type, str(answer), retry_after_s)

    def end(self) -> None:
        """Note that database and sink are closed: failures are logged no more."""
        self._has_ended = True

    def set_parked(self, parked: int) -> None:
        """Note how many records are parked now."""
        if parked != self.state.parked:
            self.state = msgspec.structs.replace(self.state, parked=parked)
