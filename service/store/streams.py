"""The stream of a lane: its first record opens it, each commit moves its stored tip, its last record closes it."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from service.errors import FencedError
from service.ports import Clock, Transition
from service.secrets import DeploymentSecret
from service.store.leases import LEASE_NS
from service.store.queries import Execute, one
from service.store.writing import LedgerTransaction, Position, behind
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.record import AuditRecord

_log = logging.getLogger(__name__)

_RENEW_NS: Final = 2_000_000_000
_BACKWARDS_NS: Final = 1_000_000_000

SystemRecord = Callable[[str], AuditRecord]
"""Returns a record about the ledger itself, such as `audit.stream.open`, made by this process."""

T = TypeVar("T", bound=LedgerTransaction)


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process needs to write its streams."""

    audit_log: AuditLogger
    secret: DeploymentSecret
    clock: Clock
    new_stream_id: Callable[[], str]
    owner: str
    system_record: SystemRecord
    operator_record: SystemRecord
    """Returns a record about the ledger itself that an operator asked for: a rotation, a restore."""
    on_commit: Callable[[Sequence[str]], None]
    """Called by any lane after each commit, with the outcomes of the records; must not raise or block."""


class BegunTransaction(msgspec.Struct, Generic[T], frozen=True):
    """A transaction of the database that has begun, with its time by the clock that decides about leases."""

    execute: Execute
    now_ns: int
    transaction: Callable[[Position], T]
    """Returns the lane's transaction in it, which continues behind this position of a stream."""
    session: str = ""


class LaneStream(Generic[T]):
    """The position of a lane in its stream after its last commit; between two streams there is none.

    The methods that take a transaction need an open one; `committed` or `rolled_back` must be called afterwards.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._audit_log = settings.audit_log
        self._position: Position | None = None
        self._alive_until_ns = 0

    @property
    def is_open(self) -> bool:
        """True while the lane has a stream in the database that it can continue."""
        return self._position is not None

    def is_ahead_of(self, now_ns: int) -> bool:
        """Tell whether the clock is so far behind the last record that the stream has to end."""
        return self._position is not None and now_ns < self._position.tip.observed_ns - _BACKWARDS_NS

    def begin(self, begun: BegunTransaction[T]) -> T:
        """Return a transaction that continues behind the last record, or behind the first record of a new stream."""
        if self._position is not None:
            return begun.transaction(self._position)
        stream_id = self._settings.new_stream_id()
        opened = {"owner": self._settings.owner, "session": begun.session, "opened_ns": begun.now_ns}
        begun.execute("open_stream", {"stream_id": stream_id, **opened, "lease_ns": LEASE_NS})
        begun.execute("open_cursor", {"stream_id": stream_id})
        transaction = begun.transaction(behind(begun.execute, Tip(stream_id), self._audit_log))
        transaction.save(Transition(record=self._settings.system_record(names.EVENT_AUDIT_STREAM_OPEN)))
        return transaction

    def move(self, transaction: T) -> None:
        """Move the stored tip to that of the transaction; if no record was added, renew the lease when that is due.

        Raises:
            FencedError: the stored tip is not the one that this lane committed, or the stream was closed.
        """
        before = Tip(transaction.tip.stream_id) if self._position is None else self._position.tip
        if transaction.tip != before:
            self._move_tip(transaction, before, closed=0)
        elif not 0 <= transaction.time_ns() + LEASE_NS - self._alive_until_ns < _RENEW_NS:
            self.renew(transaction.execute, transaction.time_ns())

    def end(self, transaction: T) -> None:
        """Close the stream with a record of its own.

        Raises:
            FencedError: as `move` does.
        """
        transaction.save(Transition(record=self._settings.system_record(names.EVENT_AUDIT_STREAM_CLOSE)))
        self.move(transaction)
        transaction.execute("close_stream", {"stream_id": transaction.tip.stream_id})

    def move_behind_end(self, transaction: T, end: Position) -> None:
        """Move the stored tip of a stream that this lane closed at `end`."""
        if transaction.tip != end.tip:
            self._move_tip(transaction, end.tip, closed=1)

    def committed(self, position: Position) -> None:
        """Take the end of the committed transaction as the new position."""
        self._position = position
        self._audit_log = position.audit_log

    def rolled_back(self) -> None:
        """Stay at the position of the last commit; a renewal in the transaction does not count."""
        self._alive_until_ns = 0

    def leave(self) -> Tip | None:
        """Give up the stream, and return its last committed record; the next transaction opens another stream."""
        position, self._position = self._position, None
        return position.tip if position else None

    def disown(self, execute: Execute, fenced: FencedError) -> None:
        """Leave the stream; no checkpoint signs over it, unless it was closed at the tip that this lane committed."""
        tip = self.leave()
        if tip is None:
            return
        _log.warning("stream %s was left for another: %s", tip.stream_id, fenced)
        values = {"stream_id": tip.stream_id, "number": tip.number, "hash": tip.hash, "reason": str(fenced)}
        execute("disown_stream", {**values, "now_ns": self._settings.clock()})

    def renew(self, execute: Execute, now_ns: int) -> None:
        """Renew the stream's lease; if the stream was closed meanwhile, the next commit finds that out."""
        if self._position is not None:
            values = {"stream_id": self._position.tip.stream_id, "now_ns": now_ns, "lease_ns": LEASE_NS}
            renewed = one(execute("renew_stream", values))
            self._alive_until_ns = renewed[0] if renewed else 0

    def _move_tip(self, transaction: T, before: Tip, *, closed: int) -> None:
        """Move the stored tip, if it is the one that this lane committed; any other tip fences the lane."""
        tip = transaction.tip
        values = {
            **msgspec.structs.asdict(tip),
            "mac": self._settings.secret.tip_mac(tip.stream_id, tip.number, tip.hash),
            "closed": closed,
            "old_number": before.number,
            "old_hash": before.hash,
            "now_ns": transaction.time_ns(),
            "lease_ns": LEASE_NS,
        }
        moved = one(transaction.execute("move_tip", values))
        if moved is None:
            raise FencedError("its stored tip is not the one that its lane committed, or is closed")
        self._alive_until_ns = moved[0]
