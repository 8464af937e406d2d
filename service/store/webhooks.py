"""The records for the endpoints of webhooks, on any database: cursors that only move forward, under leases."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from service.errors import SettingsError
from service.ports import Clock, RecordFilter, WebhookRecord, WebhookState, WebhookStream
from service.store.conditions import Dialect, conditions_of
from service.store.connections import Transactions
from service.store.queries import Execute, one

TakeLease: TypeAlias = Callable[[Execute, str], bool]
"""Takes or renews the lease of this name, in the open transaction; False while another living process has it."""

_FRESH_NS: Final = 2_000_000_000
"""A lease that was taken or renewed this recently is not renewed again, which saves a commit for each look."""


class LedgerWebhooks:
    """Implements `service.ports.WebhookOutbox` for one process."""

    def __init__(
        self, connection: Transactions, owner: str, take_lease: TakeLease, clock: Clock, dialect: Dialect
    ) -> None:
        """Work as `owner`, a name that no other process ever has.

        Args:
            connection: `close` closes it.
            owner: has the leases.
            take_lease: takes them for this owner.
            clock: nanoseconds since 1970.
            dialect: what differs in the conditions of filters.
        """
        self._connection = connection
        self._owner = owner
        self._take_lease = take_lease
        self._clock = clock
        self._dialect = dialect
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    def register(self, endpoint: str, *, from_start: bool) -> None:
        """Make the cursors of a new endpoint; of a known one they stay."""

        def register(execute: Execute) -> None:
            is_new = one(execute("register_webhook", {"endpoint": endpoint, "now_ns": self._clock()})) is not None
            if is_new and not from_start:
                execute("webhook_begins_at_the_end", {"endpoint": endpoint})

        self._connection.write(register)

    def hold(self, endpoint: str) -> bool:
        """Take or renew the lease of an endpoint; False while another living process has it."""
        with self._lock:
            taken_ns = self._held.get(endpoint)
        if taken_ns is not None and 0 <= self._clock() - taken_ns < _FRESH_NS:
            return True
        return self._take(endpoint)

    def renew(self) -> None:
        """Extend the leases that this process holds and needs."""
        with self._lock:
            held = list(self._held)
        for endpoint in held:
            self._take(endpoint)

    def rest(self, endpoint: str) -> None:
        """Say that the lease is not needed now."""
        with self._lock:
            self._held.pop(endpoint, None)

    def release(self, endpoint: str) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        self.rest(endpoint)
        self._connection.run(lambda execute: execute("release_lease", self._lease(endpoint)))

    def streams(self, endpoint: str) -> list[WebhookStream]:
        """Return the streams with records behind the cursor of the endpoint, first opened first."""
        return self._connection.run(
            lambda execute: [WebhookStream(*row) for row in execute("webhook_streams", {"endpoint": endpoint})]
        )

    def records(self, stream_id: str, after: int, upto: int, where: RecordFilter, limit: int) -> list[WebhookRecord]:
        """Return the records of a stream that match, in order: behind `after`, up to `upto`, at most `limit`."""
        conditions, values = conditions_of(where, self._dialect)
        values |= {"of_stream": stream_id, "after": after, "upto": upto, "limit": limit}

        def read(execute: Execute) -> list[WebhookRecord]:
            return [
                WebhookRecord(
                    stream_id=stream_id,
                    number=number,
                    record_id=record_id,
                    record_hash=record_hash,
                    event_name=event_name,
                    body=body,
                )
                for record_id, number, record_hash, event_name, body in execute("webhook_records", values, conditions)
            ]

        return self._connection.run(read)

    def passed(self, endpoint: str, stream_id: str, number: int) -> bool:
        """Move a cursor to a number; False when the lease was lost."""
        values = {"endpoint": endpoint, "stream_id": stream_id, "number": number}
        return self._under_lease(endpoint, lambda execute: execute("move_webhook_cursor", values))

    def note(self, endpoint: str, error: str | None, failing_since_ns: int | None) -> None:
        """Store why the records of the endpoint are held, and since when; both None when they are not."""
        values = {"endpoint": endpoint, "error": error, "failing_since_ns": failing_since_ns}
        self._under_lease(endpoint, lambda execute: execute("note_webhook", values))

    def state(self, endpoint: str) -> WebhookState | None:
        """Return the stored state of an endpoint; None if it was never registered."""
        return self._connection.run(lambda execute: state_of(execute, endpoint))

    def close(self) -> None:
        """Close the connection; leases that were not given back end by themselves."""
        self._connection.close()

    def _lease(self, endpoint: str) -> dict[str, object]:
        return {"name": _lease_of(endpoint), "owner": self._owner}

    def _take(self, endpoint: str) -> bool:
        now_ns = self._clock()
        is_taken = self._connection.write(lambda execute: self._take_lease(execute, _lease_of(endpoint)))
        with self._lock:
            if is_taken:
                self._held[endpoint] = now_ns
            else:
                self._held.pop(endpoint, None)
        return is_taken

    def _under_lease(self, endpoint: str, change: Callable[[Execute], object]) -> bool:
        def write(execute: Execute) -> bool:
            if one(execute("webhook_is_held", self._lease(endpoint))) is None:
                return False
            change(execute)
            return True

        is_held = self._connection.write(write)
        if not is_held:
            self.rest(endpoint)
        return is_held


def state_of(execute: Execute, endpoint: str) -> WebhookState | None:
    """Return the stored state of an endpoint; None if it was never registered."""
    found = one(execute("webhook_state", {"endpoint": endpoint}))
    if found is None:
        return None
    ((records, oldest_ns),) = execute("webhook_backlog", {"endpoint": endpoint})
    return WebhookState(records, oldest_ns, *found)


def states_of(execute: Execute, endpoints: Sequence[str]) -> Mapping[str, WebhookState | None]:
    """Return the state of each endpoint as `state_of` does; None for all if the database was not migrated yet."""
    is_there = _has_tables(execute)
    return {endpoint: state_of(execute, endpoint) if is_there else None for endpoint in endpoints}


def require_webhooks(execute: Execute) -> None:
    """Raise unless the schema has the tables for webhooks.

    Raises:
        SettingsError: it is older.
    """
    if not _has_tables(execute):
        raise SettingsError(["the schema of the database has no webhooks yet: run auditrace migrate"])


def _has_tables(execute: Execute) -> bool:
    ((is_there,),) = execute("has_table", {"name": "webhook_endpoints"})
    return bool(is_there)


def _lease_of(endpoint: str) -> str:
    return f"webhook {endpoint}"
