"""Sends records that were delivered before once more, in order, around those that the sink refuses alone."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from service.ports import OutboxRecord
from service.relay.delivery import Delivery, RefusedAlone
from telemetry.audit.request import in_lines
from telemetry.delivery.answers import Accepted, Refused, Rejected, Unreachable, blames_records

Held: TypeAlias = Refused | Rejected | Unreachable


class Resending:
    """One way through records that were delivered before; `accepted` counts those that the sink took."""

    def __init__(
        self,
        delivery: Delivery,
        max_records: int,
        is_held: Callable[[Held], bool],
        is_refused: Callable[[OutboxRecord, str], None],
    ) -> None:
        """Begin.

        Args:
            delivery: sends.
            max_records: of one request.
            is_held: takes an answer that is about the sink, and tells whether to send the same records again.
            is_refused: takes a record that the sink refuses alone while it accepts a neighbour, with the answer.
        """
        self.accepted = 0
        self._delivery = delivery
        self._max_records = self._limit = max_records
        self._is_held = is_held
        self._is_refused = is_refused

    def send(self, records: Sequence[OutboxRecord]) -> OutboxRecord | None:
        """Send records; returns the one to go on from when `is_held` ended it, None when the sink answered for all."""
        waiting = [*reversed(in_lines(records))]
        while waiting:
            part = waiting.pop()
            if len(part) > self._limit:
                waiting += [part[self._limit :], part[: self._limit]]
                continue
            first = self._delivery.send(part)
            if blames_records(first) and len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            following = [record for other in reversed(waiting) for record in other]
            answer = self._delivery.ask_again(part[0], following, first) if blames_records(first) else first
            if isinstance(answer, Accepted):
                self.accepted += len(part)
                self._limit = min(self._max_records, self._limit * 2)
            elif isinstance(answer, RefusedAlone):
                self._is_refused(part[0], str(answer.answer))
            elif self._is_held(answer):
                # A small one, as after any failure: what is refused after it was stored is stored again.
                self._limit = 1
                waiting.append(part)
            else:
                return part[0]
        return None
