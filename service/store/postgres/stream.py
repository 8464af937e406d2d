"""The stream that a lane writes: opened with its first record, moved on by each commit, closed with its last record."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import psycopg

from service.errors import FencedError
from service.ports import Clock, Transition
from service.secrets import DeploymentSecret
from service.store.postgres.connection import LEASE_S, Session
from service.store.postgres.statements import SQL
from service.store.postgres.transaction import Place, PostgresTransaction, place_behind
from telemetry import names
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import AuditLogger
from telemetry.audit.record import AuditRecord

_log = logging.getLogger(__name__)

LEASE_NS: Final = LEASE_S * 1_000_000_000
_RENEW_NS: Final = 2_000_000_000
_BACKWARDS_NS: Final = 1_000_000_000

SystemRecord = Callable[[str], AuditRecord]
"""Returns a record of the ledger itself (`audit.stream.open`, for one), made by this process."""


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What lanes are made of."""

    url: str
    audit_log: AuditLogger
    secret: DeploymentSecret
    clock: Clock
    new_stream_id: Callable[[], str]
    owner: str
    system_record: SystemRecord
    on_commit: Callable[[Sequence[str]], None]
    """Called after each commit, by any lane, with the outcomes of its records; must not raise or block."""


class LaneStream:
    """Where a lane stands in its stream, as of its last commit; between two streams it stands nowhere.

    The methods that take a session run in the transaction that is open on it; `committed` or `rolled_back` follows.
    """

    def __init__(self, settings: LaneSettings) -> None:
        self._settings = settings
        self._audit_log = settings.audit_log
        self._place: Place | None = None
        self._is_open = False
        self._alive_until_ns = 0

    @property
    def tip(self) -> Tip | None:
        """The last committed record; None between two streams."""
        return self._place.tip if self._place else None

    def is_ahead_of(self, now_ns: int) -> bool:
        """Tell whether the clock stepped back so far that the stream has to end."""
        return self._place is not None and now_ns < self._place.tip.observed_ns - _BACKWARDS_NS

    def begin(self, session: Session, session_name: str, now_ns: int) -> PostgresTransaction:
        """Return the transaction that goes on behind the tip, or opens a stream."""
        if self._place is not None:
            return PostgresTransaction(session, self._settings.clock, self._place, now_ns)
        settings = self._settings
        stream_id = settings.new_stream_id()
        opened = {"owner": settings.owner, "session": session_name, "opened_ns": now_ns, "lease_ns": LEASE_NS}
        session.execute(SQL["open_stream"], {"stream_id": stream_id, **opened})
        session.execute(SQL["open_cursor"], {"stream_id": stream_id})
        self._place = place_behind(session, Tip(stream_id), self._audit_log)
        self._is_open = False
        transaction = PostgresTransaction(session, settings.clock, self._place, now_ns)
        transaction.save(Transition(record=settings.system_record(names.EVENT_AUDIT_STREAM_OPEN)))
        return transaction

    def move(self, session: Session, transaction: PostgresTransaction) -> None:
        """Move the stored tip to that of the transaction; without one that is new, say when it is time that we live.

        Raises:
            FencedError: the stored tip is not the one that this lane committed.
        """
        if self._place is not None and transaction.tip != self._place.tip:
            self._move_tip(session, self._place.tip, transaction.tip)
        elif not 0 <= transaction.now_ns + LEASE_NS - self._alive_until_ns < _RENEW_NS:
            self.renew(session)

    def close(self, session: Session, place: Place, now_ns: int) -> PostgresTransaction:
        """Write the stream's last record, and let nothing but checkpoints follow it."""
        transaction = PostgresTransaction(session, self._settings.clock, place, now_ns)
        transaction.save(Transition(record=self._settings.system_record(names.EVENT_AUDIT_STREAM_CLOSE)))
        self._move_tip(session, place.tip, transaction.tip)
        transaction.execute("close_stream", {"stream_id": transaction.tip.stream_id})
        return transaction

    def extend(self, session: Session, closed: Place, transaction: PostgresTransaction) -> None:
        """Move the tip of a closed stream over the checkpoints that follow its close."""
        if transaction.tip != closed.tip:
            self._move_tip(session, closed.tip, transaction.tip, closed=1)

    def renew(self, session: Session) -> None:
        """Say that the stream's process is alive; that the stream was closed shows at the next commit."""
        if self._place is not None:
            values = {"stream_id": self._place.tip.stream_id, "lease_ns": LEASE_NS}
            renewed = session.execute(SQL["renew_stream"], values).fetchone()
            self._alive_until_ns = int(renewed[0]) if renewed else 0

    def committed(self, place: Place, *, is_open: bool) -> None:
        """Stand behind what was committed; nowhere, when that closed the stream."""
        self._audit_log = place.audit_log
        self._place, self._is_open = (place, True) if is_open else (None, False)

    def rolled_back(self) -> None:
        """Stand where the last commit left it; nowhere, when the stream was just being opened."""
        if not self._is_open:
            self._place = None

    def end(self) -> Place | None:
        """Stand nowhere from now on; returns the place that was committed last."""
        place, self._place = (self._place if self._is_open else None), None
        self._is_open = False
        return place

    def leave(self, session: Session, fenced: FencedError) -> None:
        """Give the stream up; unless it was closed where this lane left it, let no checkpoint sign over it."""
        place = self.end()
        if place is None:
            return
        tip = place.tip
        _log.warning("stream %s was left for another: %s", tip.stream_id, fenced)
        values = {"stream_id": tip.stream_id, "number": tip.number, "hash": tip.hash, "reason": str(fenced)}
        try:
            session.execute(SQL["disown_stream"], values)
        except psycopg.Error:
            _log.exception("stream %s could not be disowned", tip.stream_id)

    def _move_tip(self, session: Session, before: Tip, tip: Tip, *, closed: int = 0) -> None:
        """Move the stored tip from the one this lane knows to `tip`; that it is still there fences the lane."""
        values = {
            **msgspec.structs.asdict(tip),
            "mac": self._settings.secret.tip_mac(tip.stream_id, tip.number, tip.hash),
            "closed": closed,
            "old_number": before.number,
            "old_hash": before.hash,
            "lease_ns": LEASE_NS,
        }
        moved = session.execute(SQL["move_tip"], values).fetchone()
        if moved is None:
            raise FencedError("its stored tip is not the one that its lane committed, or is closed")
        self._alive_until_ns = int(moved[0])
