"""Verifies what was added to the service's own ledger, on schedule, and says in which state it found it."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.errors import AuditraceError, TryLaterError
from service.ports import CheckpointRow, Reads, RegisteredKey, StoredRecord, StreamRow
from telemetry import names
from telemetry.audit.checkpoint import Checkpoint, parse
from telemetry.audit.verify import Finding, Found, Place, Scope, verify
from telemetry.audit.verify.otlp_stored import found_in_row

_log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 500
STREAMS_AT_ONCE: Final = 1000
MOST_FINDINGS: Final = 1000
"""So many findings are told apart; a ledger with more is no more broken for that."""


class SelfCheckState(msgspec.Struct, frozen=True, kw_only=True):
    """What the verifications of this process found so far.

    `findings` never grows smaller: what was found once stays true of the ledger until somebody looks. `age_s` is the
    time since a verification last went through; None before the first, and while another process is to make them.
    `error` says what kept the last one from going through; None when nothing did.
    """

    findings: int
    first: str | None
    age_s: float | None
    error: str | None


class _Body(msgspec.Struct):
    event_name: str
    attributes: dict[str, Any]


_BODY: Final = msgspec.json.Decoder(_Body)


class _Mark(msgspec.Struct, frozen=True):
    """Up to where the ledger counts as verified: a checkpoint, and how far it covers each stream."""

    number: int
    observed_ns: int
    covered: Mapping[str, int]


class SelfCheck:
    """A thread that verifies, each interval, everything behind the checkpoint at which the last time ended.

    The first time begins at the last checkpoint, which is taken as it is: what is before that is the business of
    `auditrace verify --database`. Of all processes the one that writes checkpoints verifies.
    """

    def __init__(
        self,
        reads: Reads,
        keys: Callable[[], Sequence[RegisteredKey]],
        is_wanted: Callable[[], bool],
        interval_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._reads = reads
        self._keys = keys
        self._is_wanted = is_wanted
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._mark: _Mark | None = None
        self._findings: set[Finding] = set()
        self._first: str | None = None
        self._ended: float | None = None
        self._error: str | None = None
        self._thread = threading.Thread(target=self._serve, name="selfcheck", daemon=True)

    def start(self) -> None:
        """Start to verify."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a verification that is under way is given up."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def state(self) -> SelfCheckState:
        """Return what was found; reads nothing."""
        ended = self._ended
        return SelfCheckState(
            findings=len(self._findings),
            first=self._first,
            age_s=None if ended is None else max(0.0, self._monotonic() - ended),
            error=self._error,
        )

    def turn(self) -> None:
        """Verify once what was added.

        Raises:
            AuditraceError: the ledger could not be read; the next turn begins where this one did.
        """
        if not self._is_wanted():
            # What happens until this process is asked again, another one verifies.
            self._mark, self._ended = None, None
            return
        last = self._last_checkpoint()
        if last is None:
            return
        # In this order: whatever the last checkpoint names is committed, so the streams as listed now reach as far.
        streams = list(self._streams())
        mark = self._mark or self._begin(streams, last)
        if mark is None:
            return
        tips = dict(mark.covered)
        report = verify(
            self._found(streams, mark, last, tips),
            public_keys=[_public_key(key) for key in self._keys()],
            scope=Scope(since_ns=mark.observed_ns),
        )
        if self._stopping.is_set():
            return
        self._note(report.findings)
        self._mark = _Mark(last.number, last.record.observed_ns, tips)
        self._ended = self._monotonic()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            error = self._attempt()
            if error is not None and error != self._error:
                _log.error("the ledger could not be verified, trying on: %s", error)
            self._error = error
            # A process that has just started has no checkpoint to begin at for a moment.
            pause_s = self._interval_s if self._ended is not None else min(self._interval_s, 1.0)
            self._stopping.wait(pause_s)

    def _attempt(self) -> str | None:
        try:
            self.turn()
        except TryLaterError as error:
            return error.detail
        except AuditraceError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a thread that died would look like a ledger that is intact
            _log.exception("the self-verification goes on after this")
            return f"unexpected {type(error).__name__}: {error}"
        return None

    def _last_checkpoint(self) -> CheckpointRow | None:
        rows = self._reads.checkpoints(None, 1).rows
        return rows[0] if rows else None

    def _streams(self) -> Iterator[StreamRow]:
        cursor: str | None = None
        while True:
            page = self._reads.streams(cursor, STREAMS_AT_ONCE)
            yield from page.rows
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def _begin(self, streams: Sequence[StreamRow], last: CheckpointRow) -> _Mark | None:
        """Return the last checkpoint with what it covers; None when another one was written meanwhile."""
        now_last = self._last_checkpoint()
        if now_last is None or now_last.number != last.number:
            return None
        covered = {row.stream_id: row.anchored for row in streams if row.anchored is not None}
        return _Mark(last.number, last.record.observed_ns, covered)

    def _found(
        self, streams: Sequence[StreamRow], mark: _Mark, last: CheckpointRow, tips: dict[str, int]
    ) -> Iterator[Found]:
        """Yield the records behind the mark, and note in `tips` how far the checkpoints up to the last one cover."""
        for row in streams:
            for one in self._stored(row.stream_id, mark.covered.get(row.stream_id, 0) + 1, row.number):
                stated = _checkpoint(one.record.body)
                if stated is not None and stated.number > last.number:
                    # Written after the streams were listed: what it names may be behind their ends.
                    break
                for tip in stated.tips if stated is not None else ():
                    tips[tip.stream_id] = max(tip.number, tips.get(tip.stream_id, 0))
                place = Place(row.stream_id, one.record.sequence_number)
                yield from found_in_row(one.record.body, one.log_record, one.resource, place)

    def _stored(self, stream_id: str, first: int, last: int) -> Iterator[StoredRecord]:
        while first <= last and not self._stopping.is_set():
            stored = self._reads.stored_of_stream(stream_id, first, last, ROWS_AT_ONCE)
            if not stored:
                return
            yield from stored
            first = stored[-1].record.sequence_number + 1

    def _note(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding in self._findings or len(self._findings) >= MOST_FINDINGS:
                continue
            self._findings.add(finding)
            # A place is a stream here, and a number in it; a record that is missing has none.
            where = finding.place or f"{finding.stream_id}:{finding.number}"
            text = f"{finding.code} at {where}: {finding.detail}"
            self._first = self._first or text
            _log.error("the ledger does not verify: %s", text)


def _checkpoint(body: str) -> Checkpoint | None:
    try:
        decoded = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        # Whatever it is, the verification says so.
        return None
    return parse(decoded.attributes) if decoded.event_name == names.EVENT_AUDIT_CHECKPOINT else None


def _public_key(key: RegisteredKey) -> Ed25519PublicKey:
    return cast("Ed25519PublicKey", load_pem_public_key(key.public_pem.encode()))
