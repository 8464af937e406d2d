"""The lanes of a process: a few threads, each with one session and one stream, that commit queued work in groups."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from psycopg import errors

from service.errors import AuditraceError, BrokenLedgerError, FencedError, LedgerBusyError, LedgerUnavailableError
from service.store.leases import RENEW_S
from service.store.postgres.connection import translate
from service.store.postgres.intake import Entry, Intake
from service.store.postgres.session import LaneSession, LostSessionError, PostgresWork
from service.store.streams import StreamSettings
from service.store.witness import Witness
from service.store.writing import OvertakenError, Position

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_BATCH: Final = 64
"""More savepoints in one transaction would make every other session look up theirs on disk."""

LANES: Final = 4
_TRIES: Final = 5
_REDOS: Final = 3
# What another transaction is in the way of: it succeeds, or is refused for good, once that one has ended.
_IN_THE_WAY: Final = (
    OvertakenError,
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
)
# Locks that were taken earlier in the group had a part in these.
_ENDS_THE_GROUP: Final = (errors.DeadlockDetected, errors.SerializationFailure)


class PostgresLanes:
    """Implements `service.ports.Ledger` for one process.

    Each lane is serial, so the numbers of its stream are gapless and in commit order. A future is resolved after the
    commit and never before; what fails alone fails alone, and what fails the transaction fails the whole group.
    """

    def __init__(self, settings: StreamSettings, url: str, count: int = LANES) -> None:
        """Start `count` lanes; they connect when the first work comes."""
        self._intake = Intake()
        self.witness = Witness()
        self._lanes = [_Lane(LaneSession(settings, url, self.witness), self._intake, number) for number in range(count)]

    def submit(self, work: PostgresWork[T]) -> "Future[T]":
        """Queue `work` for the next group of any lane; the future is resolved after its commit."""
        future: Future[T] = Future()
        self._intake.put(Entry(work, future))
        return future

    def close(self, last: PostgresWork[object] | None = None) -> None:
        """Commit what is queued, close every stream with a record of its own, and end the threads.

        `last` runs in a transaction behind the last close, and may add checkpoints only; it is left out when no lane
        has a stream that it closed itself.
        """
        self._intake.close()
        with_stream = [lane for lane in self._lanes if lane.join()]
        if last is not None and with_stream:
            with_stream[0].commit_last(last)
        for lane in self._lanes:
            lane.drop()


class _Outcome(msgspec.Struct):
    """What became of a group whose transaction is committed."""

    settled: list[tuple[Entry, Any, Exception | None]]
    put_off: list[Entry]
    rest: Sequence[Entry] = ()


class _Lane:
    """One thread and its session."""

    def __init__(self, session: LaneSession, intake: Intake, number: int) -> None:
        self._session = session
        self._intake = intake
        self._closed: Position | None = None
        self._thread = threading.Thread(target=self._serve, name=f"lane-{number}", daemon=True)
        self._thread.start()

    def join(self) -> bool:
        """Wait until the thread has ended; tells whether it closed a stream."""
        self._thread.join()
        return self._closed is not None

    def commit_last(self, work: PostgresWork[object]) -> None:
        """Run `work` behind the closed stream, once the thread has ended."""
        closed, self._closed = self._closed, None
        if closed is not None:
            self._session.commit_behind(closed, work)

    def drop(self) -> None:
        """Close the session, once the thread has ended; nothing is committed behind its stream any more."""
        self._closed = None
        self._session.drop()

    def _serve(self) -> None:
        while (group := self._intake.take(MAX_BATCH, RENEW_S)) is not None:
            wanted = [entry for entry in group if entry.future.running() or entry.future.set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)
            else:
                self._session.renew()
        self._closed = self._session.close_stream()

    def _commit(self, group: Sequence[Entry]) -> None:
        failure: Exception = LedgerUnavailableError("the ledger goes away again and again: try later")
        for _ in range(_REDOS):
            try:
                outcome = self._transact(group)
            except FencedError as error:
                # Nothing was committed, so the group is redone in a new stream, which nobody else has seen.
                self._session.roll_back()
                self._session.disown_stream(error)
                failure = error
            except LostSessionError:
                self._session.drop()
            except LedgerBusyError as error:
                self._session.roll_back()
                failure = error
            except BrokenLedgerError as error:
                self._session.roll_back()
                self._commit_alone(group, error)
                return
            except AuditraceError as error:
                self._session.roll_back()
                _fail(group, error)
                return
            except Exception as error:  # noqa: BLE001 - a dead lane would leave every later caller waiting
                _log.exception("a group of %d could not be committed", len(group))
                self._session.drop()
                _fail(group, error)
                return
            else:
                self._answer(outcome)
                return
        _fail(group, failure)

    def _commit_alone(self, group: Sequence[Entry], error: BrokenLedgerError) -> None:
        """A constraint refused the commit: find out whose fault it was, so that nobody fails with another."""
        if len(group) == 1:
            _fail(group, error)
            return
        for entry in group:
            self._commit([entry])

    def _transact(self, group: Sequence[Entry]) -> _Outcome:
        """Run the group in one transaction and return what became of each, after the commit."""
        transaction = self._session.begin()
        outcome = _Outcome([], [])
        for position, entry in enumerate(group):
            try:
                value = self._session.attempt(transaction, entry.work, is_patient=len(group) == 1)
            except (FencedError, LostSessionError):
                raise
            except _IN_THE_WAY as error:
                if entry.tries < _TRIES:
                    outcome.put_off.append(entry)
                else:
                    outcome.settled.append((entry, None, _given_up(error)))
                if isinstance(error, _ENDS_THE_GROUP):
                    outcome.rest = group[position + 1 :]
                    break
            except Exception as error:  # noqa: BLE001 - it belongs to who handed in the work
                failure = translate(error) if isinstance(error, psycopg.Error) else error
                outcome.settled.append((entry, None, failure))
            else:
                outcome.settled.append((entry, value, None))
        self._session.commit(transaction)
        return outcome

    def _answer(self, outcome: _Outcome) -> None:
        # Only now: what another lane takes up must not be redone here.
        self._intake.put_back(outcome.rest)
        self._intake.put_off(outcome.put_off)
        for entry, value, failure in outcome.settled:
            if failure is None:
                entry.future.set_result(value)
            else:
                entry.future.set_exception(failure)


def _given_up(error: Exception) -> Exception:
    if isinstance(error, psycopg.Error):
        return translate(error)
    return LedgerBusyError("others did the same at the same time, again and again: try later")


def _fail(group: Sequence[Entry], error: Exception) -> None:
    for entry in group:
        entry.future.set_exception(error)
