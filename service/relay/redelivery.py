"""Sends parked or delivered records again, when an operator asks for it; no cursor moves."""

from collections.abc import Iterator, Sequence

import msgspec

from service.errors import InvalidRequestError
from service.ports import Outbox, OutboxRecord
from service.relay.delivery import Delivery, RefusedAlone
from telemetry.delivery.answers import Accepted, blames_records

_PAGE = 100


class Redelivered(msgspec.Struct, frozen=True):
    """The result of sending records again.

    `refused` are the records that the sink still refuses, with its answers. `held` is the answer that ended it before
    all were sent, and `next_number` the record to go on from; both None when all were sent.
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
    """Send each parked record again, alone; a record that the sink acknowledges is no longer parked.

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
    """Send the delivered records of a stream again, in order, from a number up to its cursor, without parked ones.

    Raises:
        NotFoundError: there is no such stream.
    """
    accepted = 0
    refused: list[tuple[OutboxRecord, str]] = []
    while records := outbox.replay(stream_id, first, max_records, max_bytes):
        for part, answer in delivery.answers(records, lambda: max_records):
            if isinstance(answer, Accepted):
                accepted += len(part)
            elif isinstance(answer, RefusedAlone):
                refused.append((part[0], str(answer.answer)))
            else:
                return Redelivered(accepted, refused, str(answer), part[0].number)
        first = records[-1].number + 1
    return Redelivered(accepted, refused)


def _parked(outbox: Outbox) -> Iterator[OutboxRecord]:
    after: OutboxRecord | None = None
    while page := outbox.parked(after, _PAGE):
        yield from page
        after = page[-1]
