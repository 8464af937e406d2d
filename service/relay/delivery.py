"""Sends records and decides from the sink's answers which of them are delivered, parked or held."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from service.ports import Outbox, OutboxRecord
from telemetry.audit.request import export_request, in_lines
from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected, Sink, Unreachable, blames_records
from telemetry.instruments import Instruments

_log = logging.getLogger(__name__)

COMPARED: Final = 8
"""With how many others a refused record is compared before the relay concludes that the sink refuses everything."""


class DeliveryResult(msgspec.Struct, frozen=True):
    """The result for some records: how many were delivered (cursors moved over them), and how many were parked.

    `held` is the sink's answer to the rest, which is still to be delivered; None when the sink did not refuse it.
    """

    delivered: int
    parked: int
    held: Refused | Rejected | Unreachable | None = None


class RefusedAlone(msgspec.Struct, frozen=True):
    """The sink refuses a record alone, and accepts a neighbour."""

    answer: Answer


class Delivery:
    """Sends records for one relay, and moves its cursors."""

    def __init__(self, outbox: Outbox, sink: Sink, instruments: Instruments, monotonic: Callable[[], float]) -> None:
        self._outbox = outbox
        self._sink = sink
        self._instruments = instruments
        self._monotonic = monotonic
        self._unsettled: Sequence[OutboxRecord] = ()

    def settle(self) -> None:
        """Move the cursors over records that the sink accepted while the database was away.

        To be called before taking more: otherwise an outage of the database would send them with every attempt.
        """
        if self._unsettled:
            self._move(self._unsettled)

    def deliver(self, records: Sequence[OutboxRecord]) -> DeliveryResult:
        """Send records in order until all are delivered or parked, or until the sink takes no record.

        A record is parked only when it is refused alone (`answers`): a sink that refuses everything, a wrong URL for
        example, parks nothing.
        """
        delivered = parked = 0
        for part, answer in self.answers(records, lambda: len(records)):
            if isinstance(answer, Accepted):
                moved = self._move(part)
                delivered += moved
                if moved < len(part):
                    # Another relay has the stream now, and goes on from here.
                    break
            elif isinstance(answer, RefusedAlone):
                if not self._park(part[0], answer.answer):
                    break
                parked += 1
            else:
                return DeliveryResult(delivered, parked, answer)
        return DeliveryResult(delivered, parked)

    def answers(
        self, records: Sequence[OutboxRecord], limit: Callable[[], int]
    ) -> Iterator[tuple[Sequence[OutboxRecord], Answer | RefusedAlone]]:
        """Send records in order, and yield some at a time with the sink's answer to them.

        A request that is refused for what is in it is halved until the record is alone. The record counts as refused
        alone only when it is refused, then a neighbour is accepted, then the record is refused again.

        Args:
            records: to send.
            limit: returns how many records the next request may have.
        """
        waiting = [*reversed(in_lines(records))]
        while waiting:
            part = waiting.pop()
            most = limit()
            if len(part) > most:
                waiting += [part[most:], part[:most]]
                continue
            answer = self.send(part)
            if not blames_records(answer):
                yield part, answer
            elif len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
            else:
                following = [record for other in reversed(waiting) for record in other]
                yield part, self._ask_again(part[0], following, answer)

    def send(self, records: Sequence[OutboxRecord]) -> Answer:
        """Send records as one request, and measure it."""
        started = self._monotonic()
        answer = self._sink.send(export_request(records))
        self._instruments.delivery_ended(self._monotonic() - started, answer.error_type)
        return answer

    def _ask_again(
        self, record: OutboxRecord, following: Sequence[OutboxRecord], refusal: Answer
    ) -> Answer | RefusedAlone:
        """Find out whether the sink refuses only this record, or everything: send a neighbour, then the record again.

        The neighbour is a record that was delivered before, so that no record overtakes another of its stream. When
        it is refused too, or nothing was delivered yet, the neighbour is one of those that follow, the nearest first.
        """
        before = self._outbox.neighbour(record)
        neighbours = [*([] if before is None else [before]), *_next_in_their_streams(record, following)]
        for neighbour in neighbours[:COMPARED]:
            answer = self.send([neighbour])
            if isinstance(answer, Accepted):
                again = self.send([record])
                return RefusedAlone(again) if blames_records(again) else again
            if not blames_records(answer):
                return answer
        return refusal

    def _move(self, records: Sequence[OutboxRecord]) -> int:
        """Move the cursors over accepted records; returns over how many."""
        self._unsettled = records
        lost = self._outbox.delivered(records)
        self._unsettled = ()
        for stream_id in lost:
            _log.warning("stream %s was taken over by another relay, which sends its records again", stream_id)
        moved = sum(record.stream_id not in lost for record in records)
        self._instruments.records_delivered(moved)
        return moved

    def _park(self, record: OutboxRecord, answer: Answer) -> bool:
        is_parked = self._outbox.park(record, str(answer))
        if is_parked:
            self._instruments.record_parked()
            _log.error(
                "record %s (%s number %d) is parked, because the sink refuses it alone: %s; "
                "it stays committed, and `auditrace relay --retry-parked` sends it again",
                record.record_id,
                record.stream_id,
                record.number,
                answer,
            )
        return is_parked


def _next_in_their_streams(record: OutboxRecord, following: Sequence[OutboxRecord]) -> Sequence[OutboxRecord]:
    """Return the records that can be sent before this one; they overtake only records that are refused themselves."""
    heads: dict[str, OutboxRecord] = {}
    for each in following:
        heads.setdefault(each.stream_id, each)
    behind = [each for each in following if each.stream_id == record.stream_id]
    return [*(head for stream_id, head in heads.items() if stream_id != record.stream_id), *behind]
