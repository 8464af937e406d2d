"""Sends records and decides from the sink's answers which of them are delivered, parked or held."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from service.ports import Outbox, OutboxRecord
from telemetry.audit.request import export_request, in_lines
from telemetry.delivery.answers import Accepted, Answer, Refused, Rejected, Sink, Unreachable, blames_records
from telemetry.instruments import Instruments

_log = logging.getLogger(__name__)

COMPARED: Final = 8
"""With how many others a record that is refused is compared before the sink is found to refuse everything."""


class DeliveryResult(msgspec.Struct, frozen=True):
    """What became of some records: how many cursors moved over, how many were parked, and what ended it, if anything.

    `held` is the sink's answer to what is still to be delivered; None when the sink is not to blame.
    """

    delivered: int
    parked: int
    held: Refused | Rejected | Unreachable | None = None


class RefusedAlone(msgspec.Struct, frozen=True):
    """The sink refuses a record by itself while it accepts a neighbour."""

    answer: Answer


class Delivery:
    """One relay's way of delivering."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        instruments: Instruments,
        monotonic: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._instruments = instruments
        self._monotonic = monotonic
        self._unsettled: Sequence[OutboxRecord] = ()

    def settle(self) -> None:
        """Move the cursors over what the sink accepted while the database was away; to be called before taking more.

        Otherwise an outage of the database would send the same records with every attempt.
        """
        if self._unsettled:
            self._move(self._unsettled)

    def deliver(self, records: Sequence[OutboxRecord]) -> DeliveryResult:
        """Send records in order until all are delivered or parked, or until the sink is found to be the problem.

        A request that is refused for what is in it is halved until the record is alone. It is parked only when it is
        refused alone, then a neighbour is accepted, then it is refused alone again: a sink that refuses everything, a
        wrong URL for example, parks nothing.
        """
        delivered = parked = 0
        waiting = [*reversed(in_lines(records))]
        while waiting:
            part = waiting.pop()
            first = self.send(part)
            if blames_records(first) and len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            following = [record for other in reversed(waiting) for record in other]
            answer = self.ask_again(part[0], following, first) if blames_records(first) else first
            if isinstance(answer, Accepted):
                moved = self._move(part)
                delivered += moved
                if moved < len(part):
                    # Another relay goes on from here.
                    break
            elif isinstance(answer, RefusedAlone):
                if not self._park(part[0], answer.answer):
                    break
                parked += 1
            else:
                return DeliveryResult(delivered, parked, answer)
        return DeliveryResult(delivered, parked)

    def send(self, records: Sequence[OutboxRecord]) -> Answer:
        """Send records as one request, and measure it."""
        started = self._monotonic()
        answer = self._sink.send(export_request(records))
        self._instruments.delivery_ended(self._monotonic() - started, answer.error_type)
        return answer

    def ask_again(
        self, record: OutboxRecord, following: Sequence[OutboxRecord], refusal: Answer
    ) -> Answer | RefusedAlone:
        """Find out whether the sink refuses this record, or everything: let a neighbour and the record try again.

        The neighbour is a record that was delivered before, so that nothing overtakes another within its stream. When
        that is refused too, or nothing was delivered yet, it is one of those that follow, the nearest first.
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
        """Move the cursors over accepted records; returns how many of them that were."""
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
    """Return what can be sent ahead of a record without overtaking any but those that are refused themselves."""
    heads: dict[str, OutboxRecord] = {}
    for each in following:
        heads.setdefault(each.stream_id, each)
    behind = [each for each in following if each.stream_id == record.stream_id]
    return [*(head for stream_id, head in heads.items() if stream_id != record.stream_id), *behind]
