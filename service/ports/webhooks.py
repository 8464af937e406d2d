"""Webhooks: the committed records for endpoints, each of which has a cursor of its own in every stream."""

from typing import Protocol

import msgspec

from service.ports.filters import RecordFilter


class WebhookRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A committed record as webhooks read it."""

    stream_id: str
    number: int
    record_id: str
    record_hash: str
    event_name: str
    body: str


class WebhookStream(msgspec.Struct, frozen=True):
    """A stream with records behind the cursor of an endpoint: the number of the cursor, and the last number."""

    stream_id: str
    passed: int
    committed: int


class WebhookState(msgspec.Struct, frozen=True):
    """An endpoint as the database knows it.

    `records` are those behind its cursors, also those that its filter does not match; `oldest_ns` is the observed time
    of the oldest of them. `error` is why its records are held since `failing_since_ns`; both None while they are not.
    """

    records: int
    oldest_ns: int | None
    error: str | None = None
    failing_since_ns: int | None = None


class WebhookOutbox(Protocol):
    """The committed records for the endpoints of webhooks; several processes may share the work.

    One process at a time works for an endpoint, under a lease. A cursor moves only forward, never beyond the end of its
    stream, and only by a process that has the lease. Any thread may call the methods.

    Raises (each method):
        TryLaterError: the database cannot be used now; nothing changed.
    """

    def register(self, endpoint: str, *, from_start: bool) -> None:
        """Make the cursors of a new endpoint; of a known one they stay.

        A new endpoint gets the records that are committed from now on, or with `from_start` all records.
        """
        ...

    def hold(self, endpoint: str) -> bool:
        """Take or renew the lease of an endpoint; False while another living process has it.

        It ends after 10 s, so call this, or `renew`, every 2 s.
        """
        ...

    def renew(self) -> None:
        """Extend the leases that this process holds and needs."""
        ...

    def rest(self, endpoint: str) -> None:
        """Say that the lease is not needed now. It ends by itself, and `hold` takes it again at once."""
        ...

    def release(self, endpoint: str) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        ...

    def streams(self, endpoint: str) -> list[WebhookStream]:
        """Return the streams with records behind the cursor of the endpoint, first opened first."""
        ...

    def records(self, stream_id: str, after: int, upto: int, where: RecordFilter, limit: int) -> list[WebhookRecord]:
        """Return the records of a stream that match, in order: behind `after`, up to `upto`, at most `limit`."""
        ...

    def passed(self, endpoint: str, stream_id: str, number: int) -> bool:
        """Move a cursor to a number: the endpoint acknowledged all that match until there. False: the lease was lost.

        A cursor that is already further stays there.
        """
        ...

    def note(self, endpoint: str, error: str | None, failing_since_ns: int | None) -> None:
        """Store why the records of the endpoint are held, and since when; both None when they are not."""
        ...

    def state(self, endpoint: str) -> WebhookState | None:
        """Return the stored state of an endpoint; None if it was never registered."""
        ...

    def close(self) -> None:
        """Close the connection; leases that were not given back end by themselves."""
        ...
