"""Sends again what was parked or delivered before, when an operator asks for it; no cursor moves."""

from collections.abc import Iterator, Sequence

import msgspec

from service.errors import InvalidRequestError
from service.ports import Outbox, OutboxRecord
from service.relay.delivery import Delivery
from service.relay.resending import Held, Resending
from telemetry.delivery.answers import Accepted, blames_records

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
    refused: list[tuple[OutboxRecord, str]] = []
    held: list[str] = []

    def is_held(answer: Held) -> bool:
        held.append(str(answer))
        return False

    resending = Resending(delivery, max_records, is_held, lambda record, answer: refused.append((record, answer)))
    while records := outbox.replay(stream_id, first, max_records, max_bytes):
        stopped = resending.send(records)
        if stopped is not None:
            return Redelivered(resending.accepted, refused, held[0], stopped.number)
        first = records[-1].number + 1
    return Redelivered(resending.accepted, refused)


def _parked(outbox: Outbox) -> Iterator[OutboxRecord]:
    after: OutboxRecord | None = None
    while page := outbox.parked(after, _PAGE):
        yield from page
        after = page[-1]
