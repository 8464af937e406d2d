"""The deliveries to one endpoint: takes the records of each stream in order, and moves the cursors behind them."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from service.errors import AuditraceError, TryLaterError
from service.ports import WebhookOutbox, WebhookRecord, WebhookStream
from service.relay.attempts import RELEASE_AFTER_FAILURES, AttemptResult
from service.relay.state import DeliveryProgress
from service.webhooks.endpoints import WebhookEndpoint
from service.webhooks.holds import Holds
from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected, Unreachable
from telemetry.instruments import Instruments

_log = logging.getLogger(__name__)

_WINDOW: Final = 2000
"""How many numbers of a stream one look goes through, so that a filter that matches little causes no long read."""
_TAKEN: Final = 64
"""The most records that one look takes of a stream, so that streams take turns."""
_MOVE_AFTER_S: Final = 0.5
"""The longest time that a cursor stays behind an acknowledged record while others follow."""
_ASKED: Final = 8
"""How many streams are tried in a turn in which the endpoint refuses every record."""
_OF_ONE_RECORD: Final = frozenset({400, 413, 422})
"""The statuses that may be about the record, and not about the endpoint."""


class Sender(Protocol):
    """Sends records to one endpoint."""

    def send(self, record: WebhookRecord) -> Answer:
        """Send a record and return the answer; raises nothing."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class _Part(msgspec.Struct, frozen=True):
    """What was done with a stream: how many records were acknowledged, whether more follow, and what ended it."""

    sent: int
    has_more: bool
    refusal: Refused | Rejected | Unreachable | None = None


class _LeaseLostError(Exception):
    """Another process works for the endpoint now; never leaves this file."""


class Deliveries:
    """Delivers the records of one endpoint, on one thread.

    In a stream, a record is sent only after the endpoint acknowledged the one before it. A cursor moves only behind
    acknowledged records, so a crash can only cause repetitions.
    """

    def __init__(
        self,
        endpoint: WebhookEndpoint,
        outbox: WebhookOutbox,
        sender: Sender,
        progress: DeliveryProgress,
        holds: Holds,
        instruments: Instruments,
        monotonic: Callable[[], float],
        is_over: Callable[[], bool],
    ) -> None:
        """Deliver until `is_over` says that the time of a stop is over; then a turn ends behind the present record."""
        self._endpoint = endpoint
        self._name = endpoint.name
        self._outbox = outbox
        self._sender = sender
        self._progress = progress
        self._holds = holds
        self._instruments = instruments
        self._monotonic = monotonic
        self._is_over = is_over
        self._is_registered = False
        self._unsettled: tuple[str, int] | None = None
        self._noted: object = None

    def register(self) -> None:
        """Make the cursors of a new endpoint, once.

        Raises:
            TryLaterError: the database cannot be used now; the next turn tries again.
        """
        if not self._is_registered:
            self._outbox.register(self._name, from_start=self._endpoint.from_start)
            self._is_registered = True

    def next(self) -> AttemptResult:
        """Deliver some records of each stream; a failure is kept in the state, and delays the next attempt."""
        try:
            self.register()
            return self._deliver()
        except _LeaseLostError:
            _log.warning("another process delivers to webhook %s now, and may repeat the last records", self._name)
            return AttemptResult.IDLE
        except AuditraceError as error:
            self._progress.failed("database" if isinstance(error, TryLaterError) else error.error_type, str(error))
        except Exception as error:  # noqa: BLE001 - a thread that died would deliver nothing any more
            name = f"unexpected {type(error).__name__}"
            if self._progress.failed(name, f"{name}: {error}"):
                _log.exception("the deliveries go on after this")
        return self._failed()

    def release(self) -> None:
        """Give the lease back; if that fails, it ends by itself."""
        with suppress(AuditraceError):
            self._outbox.release(self._name)

    def _deliver(self) -> AttemptResult:
        if self._unsettled is not None:
            # Acknowledged while the database was away; otherwise they would be sent again.
            self._move(*self._unsettled)
        streams = self._outbox.streams(self._name)
        if not streams:
            self._progress.recovered(0)
            self._outbox.rest(self._name)
            return AttemptResult.IDLE
        if not self._outbox.hold(self._name):
            return AttemptResult.IDLE
        due = self._holds.due(streams)
        return self._deliver_each(due) if due else AttemptResult.IDLE

    def _deliver_each(self, streams: Sequence[WebhookStream]) -> AttemptResult:
        """Go through the streams. A refused record holds its own stream; every other failure holds all of them."""
        sent, has_more, refusals = 0, False, list[Refused]()
        for stream in streams:
            part = self._deliver_stream(stream)
            sent += part.sent
            if part.sent:
                # The failures in a row begin anew: an endpoint that takes some records is not waited for longer.
                self._progress.progressed()
                self._holds.accepted(stream.stream_id)
            has_more = has_more or part.has_more
            if isinstance(part.refusal, Refused) and part.refusal.status in _OF_ONE_RECORD:
                refusals.append(part.refusal)
                self._holds.refused(stream.stream_id, part.refusal.retry_after_s)
            elif part.refusal is not None:
                self._progress.held(part.refusal)
                return self._failed()
            else:
                self._holds.accepted(stream.stream_id)
            if self._is_over() or (len(refusals) >= _ASKED and not sent):
                break
        if refusals:
            self._progress.held(refusals[-1])
            if not sent:
                return self._failed()
            # The endpoint takes other records, so that only streams wait.
            self._progress.progressed()
        elif not self._holds.are_there and self._progress.state.failing_since_ns is not None:
            state = self._outbox.state(self._name)
            self._progress.recovered(state.records if state else 0)
        self._note()
        return AttemptResult.FULL if has_more else AttemptResult.DELIVERED

    def _deliver_stream(self, stream: WebhookStream) -> _Part:
        """Send the next records of a stream, and move its cursor over those that match nothing too."""
        upto = min(stream.committed, stream.passed + _WINDOW)
        records = self._outbox.records(stream.stream_id, stream.passed, upto, self._endpoint.where, _TAKEN)
        if len(records) == _TAKEN:
            upto = records[-1].number
        sent, passed, moved_at = 0, stream.passed, self._monotonic()
        for record in records:
            refusal = None if self._is_over() else self._send(record)
            if not isinstance(refusal, Accepted):
                if record.number - 1 > passed:
                    self._move(stream.stream_id, record.number - 1)
                return _Part(sent, has_more=True, refusal=refusal)
            sent += 1
            if self._monotonic() - moved_at >= _MOVE_AFTER_S:
                self._move(stream.stream_id, record.number)
                passed, moved_at = record.number, self._monotonic()
        if upto > passed:
            self._move(stream.stream_id, upto)
        return _Part(sent, has_more=upto < stream.committed)

    def _send(self, record: WebhookRecord) -> Answer:
        answer = self._sender.send(record)
        self._instruments.webhook_delivery_ended(self._name, answer.error_type)
        return answer

    def _move(self, stream_id: str, number: int) -> None:
        self._unsettled = (stream_id, number)
        is_moved = self._outbox.passed(self._name, stream_id, number)
        self._unsettled = None
        if not is_moved:
            raise _LeaseLostError

    def _failed(self) -> AttemptResult:
        with suppress(AuditraceError):
            self._note()
        if self._progress.state.failures >= RELEASE_AFTER_FAILURES:
            # Another process may reach the endpoint.
            self.release()
        return AttemptResult.FAILED

    def _note(self) -> None:
        """Store the state for other processes, when it has changed."""
        state = self._progress.state
        now = (state.error, state.failing_since_ns)
        if now != self._noted:
            self._outbox.note(self._name, *now)
            self._noted = now
