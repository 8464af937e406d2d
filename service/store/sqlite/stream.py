"""The stream that a lane writes: opened with its first record, moved on by each commit, closed with its last record."""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from service.errors import FencedError
from service.ports import Clock, Transition
from service.secrets import DeploymentSecret
from service.store.sqlite.owners import OwnerLocks
from service.store.sqlite.transaction import SQL, Place, SqliteTransaction, place_behind
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.record import AuditRecord

_log = logging.getLogger(__name__)

LEASE_NS: Final = 10_000_000_000
RENEW_S: Final = 2.0
_RENEW_NS: Final = 2_000_000_000
_BACKWARDS_NS: Final = 1_000_000_000
_EPOCH: Final = 1

SystemRecord = Callable[[str], AuditRecord]
"""Returns a record of the ledger itself (`audit.stream.open`, for one), made by this process."""


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream is made of."""

    path: Path
    audit_log: AuditLogger
    secret: DeploymentSecret
    clock: Clock
    new_stream_id: Callable[[], str]
    owner: str
    locks: OwnerLocks
    system_record: SystemRecord


def is_leased(until_ns: int, now_ns: int) -> bool:
    """Tell whether a lease until then stands; one that ends too far ahead is of before the clock stepped back."""
    return now_ns <= until_ns <= now_ns + 2 * LEASE_NS


class LaneStream:
    """Where a lane stands in its stream, as of its last commit; between two streams it stands nowhere.

    The methods that take a connection run in the transaction that is open on it; `committed` or `rolled_back` follows.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._audit_log = settings.audit_log
        self._place: Place | None = None
        self._alive_until_ns = 0

    @property
    def is_open(self) -> bool:
        """True while the lane has a stream in the database that it can go on with."""
        return self._place is not None

    def has_stepped_back(self) -> bool:
        """True when the clock is so far behind the last record that the stream has to end."""
        place = self._place
        return place is not None and self._settings.clock() < place.tip.observed_ns - _BACKWARDS_NS

    def begin(self, connection: sqlite3.Connection) -> SqliteTransaction:
        """Return the transaction that goes on behind the last record, or in a new stream behind its opening."""
        if self._place is not None:
            return self._transaction(connection, self._place)
        settings, opened_ns = self._settings, self._settings.clock()
        stream_id = settings.new_stream_id()
        opened = {
            "stream_id": stream_id,
            "epoch": _EPOCH,
            "owner": settings.owner,
            "opened_ns": opened_ns,
            "alive_until_ns": opened_ns + LEASE_NS,
        }
        connection.execute(SQL["open_stream"], opened)
        connection.execute(SQL["open_cursor"], {"stream_id": stream_id})
        transaction = self._transaction(connection, place_behind(connection, Tip(stream_id), self._audit_log))
        transaction.save(Transition(record=settings.system_record(names.EVENT_AUDIT_STREAM_OPEN)))
        return transaction

    def move(self, transaction: SqliteTransaction) -> None:
        """Move the stored tip to that of the transaction, or say that the stream's process is alive.

        Raises:
            FencedError: the stored tip is not the one that this lane committed, or the stream was closed.
        """
        before = Tip(transaction.tip.stream_id) if self._place is None else self._place.tip
        if transaction.tip == before:
            self.renew(transaction.connection)
        else:
            self._move_tip(transaction, before, closed=0)

    def end(self, transaction: SqliteTransaction) -> None:
        """Close the stream with a record of its own.

        Raises:
            FencedError: as `move` does.
        """
        transaction.save(Transition(record=self._settings.system_record(names.EVENT_AUDIT_STREAM_CLOSE)))
        self.move(transaction)
        values = {"stream_id": transaction.tip.stream_id, "epoch": _EPOCH}
        transaction.connection.execute(SQL["close_stream"], values)

    def begin_behind_end(self, connection: sqlite3.Connection, end: Place) -> SqliteTransaction:
        """Return the transaction of what may follow the end of a stream that this lane closed."""
        return self._transaction(connection, end)

    def move_behind_end(self, transaction: SqliteTransaction, end: Place) -> None:
        """Move the stored tip of a stream that this lane closed."""
        if transaction.tip != end.tip:
            self._move_tip(transaction, end.tip, closed=1)

    def committed(self, transaction: SqliteTransaction) -> None:
        """Stand where the committed transaction ended."""
        self._place = transaction.place
        self._audit_log = transaction.place.audit_log

    def rolled_back(self) -> None:
        """Stand where the last commit ended; whatever was said about being alive was not."""
        self._alive_until_ns = 0

    def leave(self) -> Tip | None:
        """Stand nowhere: the next transaction opens another stream; returns the last committed record of this one."""
        place, self._place = self._place, None
        return place.tip if place else None

    def disown(self, connection: sqlite3.Connection, why: FencedError) -> None:
        """Leave the stream; unless it was closed where this lane left it, let no checkpoint sign over it."""
        place, self._place = self._place, None
        if place is None:
            return
        _log.warning("stream %s was left for another: %s", place.tip.stream_id, why)
        values = {
            "stream_id": place.tip.stream_id,
            "number": place.tip.number,
            "hash": place.tip.hash,
            "reason": str(why),
            "since_ns": self._settings.clock(),
        }
        connection.execute(SQL["disown_stream"], values)

    def renew(self, connection: sqlite3.Connection) -> None:
        """Say, when it is time to, that the stream's process is alive; that it was closed shows at the next commit."""
        now_ns, place = self._settings.clock(), self._place
        if place is None or now_ns + LEASE_NS - _RENEW_NS < self._alive_until_ns <= now_ns + LEASE_NS:
            return
        self._alive_until_ns = now_ns + LEASE_NS
        values = {"stream_id": place.tip.stream_id, "epoch": _EPOCH, "alive_until_ns": self._alive_until_ns}
        connection.execute(SQL["renew_stream"], values)

    def _transaction(self, connection: sqlite3.Connection, place: Place) -> SqliteTransaction:
        return SqliteTransaction(connection, self._settings.clock, self._settings.locks, place)

    def _move_tip(self, transaction: SqliteTransaction, before: Tip, *, closed: int) -> None:
        """Move the stored tip from the one that this lane knows; that it is still there fences the lane."""
        tip = transaction.tip
        self._alive_until_ns = self._settings.clock() + LEASE_NS
        values = {
            **msgspec.structs.asdict(tip),
            "mac": self._settings.secret.tip_mac(tip.stream_id, tip.number, tip.hash),
            "epoch": _EPOCH,
            "closed": closed,
            "old_number": before.number,
            "old_hash": before.hash,
            "alive_until_ns": self._alive_until_ns,
        }
        if transaction.connection.execute(SQL["move_tip"], values).rowcount != 1:
            raise FencedError("its stored tip is not the one that its lane committed, or is closed")
