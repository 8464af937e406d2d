"""The streams of an endpoint that wait, because the endpoint refuses their next record."""

from collections.abc import Callable, Sequence

import msgspec

from service.ports import WebhookStream
from service.relay.backoff import Pause


class Hold(msgspec.Struct, frozen=True):
    """How often in a row the next record of a stream was refused, and until when the stream is left alone."""

    failures: int
    until: float


class Holds:
    """The holds of one endpoint; for one thread. A record is tried again after a pause, for ever."""

    def __init__(self, pause: Pause, monotonic: Callable[[], float]) -> None:
        self._pause = pause
        self._monotonic = monotonic
        self._held: dict[str, Hold] = {}

    @property
    def are_there(self) -> bool:
        """True while a stream is held."""
        return bool(self._held)

    def due(self, streams: Sequence[WebhookStream]) -> Sequence[WebhookStream]:
        """Return the streams that may be tried now. Holds of all other streams than these are forgotten."""
        behind = {stream.stream_id for stream in streams}
        self._held = {stream_id: hold for stream_id, hold in self._held.items() if stream_id in behind}
        now = self._monotonic()
        return [one for one in streams if one.stream_id not in self._held or self._held[one.stream_id].until <= now]

    def refused(self, stream_id: str, retry_after_s: float | None) -> None:
        """Note that the next record of a stream was refused."""
        before = self._held.get(stream_id)
        failures = 1 if before is None else before.failures + 1
        self._held[stream_id] = Hold(failures, self._monotonic() + self._pause(failures, retry_after_s))

    def accepted(self, stream_id: str) -> None:
        """Note that a stream went on."""
        self._held.pop(stream_id, None)
