"""Offers records to a sink that is about to be replaced; no cursor moves, so the relays deliver them as always."""

from collections.abc import Iterator, Sequence
from typing import Final

from service.ports import Outbox, OutboxRecord
from service.relay.stall_timeout import StallTimeout
from telemetry.audit.request import export_request
from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected, Sink

_MAX_RECORDS: Final = 512
_MAX_BYTES: Final = 1024 * 1024
_PAUSE_S: Final = 0.2
_TOO_MANY_REQUESTS: Final = 429


def offer(outbox: Outbox, sink: Sink, stream_id: str, last: int, timeout: StallTimeout) -> str | None:
    """Send a stream up to its record `last`; return why the sink did not take all of it, None if it did.

    A sink that cannot be reached is tried until `timeout` ends, one that refuses only once.
    """
    return _sent(sink, _stream(outbox, stream_id, 0, last), timeout)


def offer_backlog(outbox: Outbox, sink: Sink, timeout: StallTimeout) -> str | None:
    """Send what is committed and undelivered now, in all streams; returns what `offer` does."""
    for lag in outbox.backlog():
        answer = _sent(sink, _stream(outbox, lag.stream_id, lag.delivered, lag.committed), timeout)
        if answer is not None:
            return answer
    return None


def _stream(outbox: Outbox, stream_id: str, behind: int, last: int) -> Iterator[Sequence[OutboxRecord]]:
    while behind < last:
        found = outbox.committed_behind(stream_id, behind, min(_MAX_RECORDS, last - behind), _MAX_BYTES)
        if not found:
            return
        yield found
        behind = found[-1].number


def _sent(sink: Sink, batches: Iterator[Sequence[OutboxRecord]], timeout: StallTimeout) -> str | None:
    for count, batch in enumerate(batches):
        if count and timeout.left_s() <= 0:
            return "it did not take all of them in time"
        request = export_request(batch)
        while not isinstance(answer := sink.send(request), Accepted):
            if _is_final(answer) or not timeout.pause(_PAUSE_S):
                return str(answer)
    return None


def _is_final(answer: Answer) -> bool:
    if isinstance(answer, Refused):
        return 400 <= answer.status < 500 and answer.status != _TOO_MANY_REQUESTS
    return isinstance(answer, Rejected)
