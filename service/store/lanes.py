"""The lanes of a process: threads, each with one session and one stream, that commit queued work in groups."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import msgspec

from service.errors import AuditraceError, BrokenLedgerError, FencedError, LedgerUnavailableError
from service.store.lane_session import EndedTransactionError, LaneSession, LostSessionError
from service.store.leases import RENEW_S
from service.store.rollback_guard import RollbackGuard
from service.store.streams import StreamSettings
from service.store.work_queue import QueuedWork, WorkQueue
from service.store.writing import LedgerTransaction, OvertakenError, Position

R = TypeVar("R")
T = TypeVar("T", bound=LedgerTransaction)

_log = logging.getLogger(__name__)

_TRIES = 5


class GroupRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a store commits groups, and what its errors mean for them."""

    max_group: int
    """The largest group: more savepoints in one transaction cost more than they save."""
    rounds: int
    """How often a group is tried, if others prevent its commit."""
    translate: Callable[[Exception], Exception]
    """Returns the service's error for an error of the driver, and any other error as it is."""
    retried: tuple[type[Exception], ...] = ()
    """Errors after which a group is tried again, as it is after the loss of its stream or session."""
    in_the_way: tuple[type[Exception], ...] = (OvertakenError,)
    """Errors that another transaction causes: once it has ended, the work succeeds or is refused for good."""
    ends_the_group: tuple[type[Exception], ...] = ()
    """Those of `in_the_way` that locks of earlier work in the group can cause."""


class Lanes(Generic[T]):
    """Implements `service.ports.Ledger` for one process.

    Each lane is serial, so the numbers of its stream are gapless and in commit order. A future is resolved after the
    commit and never before. Work that raises fails alone; an error of the transaction fails the whole group.
    """

    def __init__(
        self,
        settings: StreamSettings,
        sessions: Sequence[LaneSession[T, Any]],
        rules: GroupRules,
        rollback_guard: RollbackGuard,
    ) -> None:
        """Start a lane for each session; a lane connects when its first work comes."""
        self.settings = settings
        self.rollback_guard = rollback_guard
        self._queue: WorkQueue[T] = WorkQueue()
        self._lanes = [_Lane(session, rules, self._queue, number) for number, session in enumerate(sessions)]

    def submit(self, work: Callable[[T], R]) -> "Future[R]":
        """Queue `work` for the next group of any lane; the future is resolved after its commit."""
        future: Future[R] = Future()
        self._queue.put(QueuedWork(work, future))
        return future

    def close(self, last: Callable[[T], object] | None = None) -> None:
        """Commit what is queued, close every stream with a record of its own, and end the threads.

        After that, `last` runs in a transaction behind the end of one of these streams, and may only add checkpoints.
        It does not run if no lane closed a stream.
        """
        self._queue.close()
        with_stream = [lane for lane in self._lanes if lane.join()]
        if last is not None and with_stream:
            with_stream[0].commit_last(last)
        for lane in self._lanes:
            lane.drop()


class _GroupResult(msgspec.Struct, Generic[T]):
    """The results of a group whose transaction is committed."""

    settled: list[tuple[QueuedWork[T], Any, Exception | None]]
    put_off: list[QueuedWork[T]]
    rest: Sequence[QueuedWork[T]] = ()


class _Lane(Generic[T]):
    """One thread and its session."""

    def __init__(self, session: LaneSession[T, Any], rules: GroupRules, queue: WorkQueue[T], number: int) -> None:
        self._session = session
        self._rules = rules
        self._queue = queue
        self._end: Position | None = None
        self._thread = threading.Thread(target=self._serve, name=f"lane-{number}", daemon=True)
        self._thread.start()

    def join(self) -> bool:
        """Wait until the thread has ended, and tell whether it closed a stream."""
        self._thread.join()
        return self._end is not None

    def commit_last(self, work: Callable[[T], object]) -> None:
        """Run `work` behind the closed stream, after the thread has ended."""
        end, self._end = self._end, None
        if end is not None:
            self._session.commit_behind(end, work)

    def drop(self) -> None:
        """Close the session after the thread has ended; nothing more is committed behind its stream."""
        self._end = None
        self._session.drop()

    def _serve(self) -> None:
        while (group := self._queue.take(self._rules.max_group, RENEW_S)) is not None:
            wanted = [entry for entry in group if entry.future.running() or entry.future.set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)
            elif not group:
                self._session.renew()
        self._end = self._session.close_stream()

    def _commit(self, group: Sequence[QueuedWork[T]]) -> None:
        failure: Exception = LedgerUnavailableError("the ledger goes away again and again: try later")
        for _ in range(self._rules.rounds):
            try:
                result = self._transact(group)
            except FencedError as error:
                # Nothing was committed, so the group runs again, in a new stream that no other writer knows.
                self._session.roll_back()
                self._session.disown_stream(error)
                failure = error
            except LostSessionError:
                self._session.drop()
            except self._rules.retried as error:
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
                self._answer(result)
                return
        _fail(group, failure)

    def _commit_alone(self, group: Sequence[QueuedWork[T]], error: BrokenLedgerError) -> None:
        """Commit each entry alone after a constraint refused the commit, so that only the refused ones fail."""
        if len(group) == 1:
            _fail(group, error)
            return
        for entry in group:
            self._commit([entry])

    def _transact(self, group: Sequence[QueuedWork[T]]) -> _GroupResult[T]:
        """Run the group in one transaction, commit it, and return the result of each entry."""
        transaction = self._session.begin()
        result: _GroupResult[T] = _GroupResult([], [])
        for at, entry in enumerate(group):
            try:
                value = self._session.attempt(transaction, entry.work, is_patient=len(group) == 1)
            except (FencedError, LostSessionError):
                raise
            except EndedTransactionError as ended:
                raise self._rules.translate(ended.error) from ended.error
            except self._rules.in_the_way as error:
                if entry.tries < _TRIES:
                    result.put_off.append(entry)
                else:
                    result.settled.append((entry, None, self._rules.translate(error)))
                if isinstance(error, self._rules.ends_the_group):
                    result.rest = group[at + 1 :]
                    break
            except Exception as error:  # noqa: BLE001 - it belongs to the caller who submitted the work
                result.settled.append((entry, None, self._rules.translate(error)))
            else:
                result.settled.append((entry, value, None))
        self._session.commit(transaction)
        return result

    def _answer(self, result: _GroupResult[T]) -> None:
        # Only after the commit: another lane may take this work at once, and it must not run again here.
        self._queue.put_back(result.rest)
        self._queue.put_off(result.put_off)
        for entry, value, failure in result.settled:
            if failure is None:
                entry.future.set_result(value)
            else:
                entry.future.set_exception(failure)


def _fail(group: Sequence[QueuedWork[T]], error: Exception) -> None:
    for entry in group:
        entry.future.set_exception(error)
