"""Follows the audit trail as a client does: it reads server-sent events, and continues behind the last id."""

import http.client
import json
import time
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

RECORD, POSITION, END = "record", "position", "end"


class Event(NamedTuple):
    """A server-sent event: its name, its id (empty when it has none) and its JSON; a comment has the name `:`."""

    name: str
    id: str
    data: Any


class Follower:
    """One request that follows the trail; nothing is read from its connection before it is asked for."""

    def __init__(
        self, url: str, key: str, query: str = "", last_id: str | None = None, *, patience_s: float = 60.0
    ) -> None:
        """Send the request and read the head of its answer; `query` begins with `&`.

        Raises:
            OSError, http.client.HTTPException: nobody answers.
        """
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=patience_s)
        headers = {"Authorization": f"Bearer {key}", **({"Last-Event-ID": last_id} if last_id is not None else {})}
        try:
            self._connection.request("GET", f"/v1/audit/records?follow{query}", headers=headers)
            self.answer = self._connection.getresponse()
        except BaseException:
            self._connection.close()
            raise
        self._patience_s = patience_s
        self._events = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.answer.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield the events until the answer ends; a part of an event at the end of a broken connection is none.

        Raises:
            OSError, http.client.HTTPException: the connection broke.
        """
        return self._events

    def first(self) -> Event:
        """Return the event that every follow begins with."""
        event = next(self._events)
        assert event.name == POSITION, event
        return event

    def records(self, count: int) -> list[Event]:
        """Return the next events with records, so many of them."""
        return list(islice((event for event in self._events if event.name == RECORD), count))

    def next_of(self, name: str) -> Event:
        """Return the next event of this name, whatever comes before it."""
        return next(event for event in self._events if event.name == name)

    def _read(self) -> Iterator[Event]:
        left, until = b"", time.monotonic() + self._patience_s
        while part := self.answer.read1(65536):
            # Comments keep the connection busy while what is waited for does not come.
            assert time.monotonic() < until, "what is waited for does not come"
            *blocks, left = (left + part).split(b"\n\n")
            yield from map(_event, blocks)


def _event(block: bytes) -> Event:
    fields = dict(line.split(": ", 1) if ": " in line else (line, "") for line in block.decode().split("\n"))
    if fields == {":": ""}:
        return Event(":", "", None)
    assert fields.keys() <= {"id", "event", "data", "retry"}, block
    return Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
