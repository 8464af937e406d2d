"""Sends again what was parked or delivered before, when an operator asks for it; no cursor moves."""

from collections.abc import Iterator, Sequence

import msgspec

from service.errors import InvalidRequestError
from service.ports import Outbox, OutboxRecord
from service.relay.delivery import Delivery
from telemetry.audit.request import in_lines
from telemetry.delivery import Accepted, blames_records

_PAGE = 100


class Redelivered(msgspec.Struct, frozen=True):
    """What became of records that were sent again.

    `refused` are those that the sink still refuses, with its answers. `held` is the answer that ended it before all
    were sent, and `next_number` the record to go on from; both None when all were.
    """

    accepted: int
    refused: Sequence[tuple[OutboxRecord, str]]
    held: str | None = None
    next_number: int | None = None


def parse_place(text: str) -> tuple[str, int]:
    """Return stream and number of `STREAM:NUMBER`.

    Raises:
        InvalidRequestError: it is not of that form.
    """
    stream_id, _, number = text.rpartition(":")
    if not stream_id or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise InvalidRequestError(f"{text!r} is not STREAM:NUMBER, with a number from 1")
    return stream_id, int(number)


def retry_parked(outbox: Outbox, delivery: Delivery) -> Redelivered:
    """Send each parked record again, alone; what the sink acknowledges is parked no more.

    A crash between the two sends the record once more the next time.
    """
    accepted = 0
    refused: list[tuple[OutboxRecord, str]] = []
    for record in _parked(outbox):
        answer = delivery.send([record])
        if isinstance(answer, Accepted):
            outbox.unpark(record)
            accepted += 1
        elif blames_records(answer):
            outbox.answered(record, str(answer))
            refused.append((record, str(answer)))
        else:
            return Redelivered(accepted, refused, str(answer), record.number)
    return Redelivered(accepted, refused)


def replay(
    outbox: Outbox, delivery: Delivery, stream_id: str, first: int, max_records: int, max_bytes: int
) -> Redelivered:
    """Send what was delivered of a stream again, in order, from a number up to its cursor; parked records are left out.

    Raises:
        NotFoundError: there is no such stream.
    """
    accepted = 0
    refused: list[tuple[OutboxRecord, str]] = []
    while records := outbox.replay(stream_id, first, max_records, max_bytes):
        waiting = [*reversed(in_lines(records))]
        while waiting:
            part = waiting.pop()
            answer = delivery.send(part)
            if isinstance(answer, Accepted):
                accepted += len(part)
            elif not blames_records(answer):
                return Redelivered(accepted, refused, str(answer), part[0].number)
            elif len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
            else:
                refused.append((part[0], str(answer)))
        first = records[-1].number + 1
    return Redelivered(accepted, refused)


def _parked(outbox: Outbox) -> Iterator[OutboxRecord]:
    after: OutboxRecord | None = None
    while page := outbox.parked(after, _PAGE):
        yield from page
        after = page[-1]
