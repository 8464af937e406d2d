"""A connection that is lost at any point of a commit loses nothing and does nothing twice."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.errors import LedgerUnavailableError
from service.ports import Receipt, Transaction, Transition, Work
from service.store.postgres.lanes import PostgresLanes
from tests.fault.postgres_proxy import PostgresProxy
from tests.support.both_stores import POSTGRES
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import connection_of, new_job

pytestmark = pytest.mark.stores(POSTGRES)


@pytest.fixture
def proxy(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[PostgresProxy]:
    """A way to the server that can be cut at any moment; to be asked for before the store, which ends first then."""
    opened = PostgresProxy(tmp_path, postgres_server.folder)
    yield opened
    opened.before = opened.after = lambda: True
    opened.close()


def _saves(store: PostgresStore, transition: Transition) -> Work[Receipt]:
    return lambda transaction: transaction.save(transition)


def _commit(store: PostgresStore, lane: PostgresLanes) -> Receipt:
    return lane.submit(lambda transaction: transaction.save(store.fact())).result()


def _once(number: int = 1) -> Callable[[], bool]:
    """Return what says no the time of this number, and yes all other times."""
    said: list[bool] = []

    def answer() -> bool:
        said.append(len(said) + 1 != number)
        return said[-1]

    return answer


def _end_session_of(transaction: Any) -> None:
    """End the session of an open transaction, as an operator or a failing server does."""
    session = connection_of(transaction)
    ((pid,),) = session.execute("SELECT pg_backend_pid()").fetchall()
    with psycopg.connect(session.info.dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def _places(store: PostgresStore, *events: str) -> dict[str, list[int]]:
    """Return the numbers of the records of these events, by stream."""
    found: dict[str, list[int]] = {}
    for stream_id, number in store.rows(
        "SELECT stream_id, number FROM audit_records WHERE event_name = ANY(?) ORDER BY stream_id, number", list(events)
    ):
        found.setdefault(stream_id, []).append(number)
    return found


def test_a_connection_that_is_lost_between_insert_and_commit_costs_nothing(store: PostgresStore) -> None:
    """Nothing is committed yet, so the group is redone on a new connection, in a new stream; callers see no error."""
    lane = store.lane()
    before = _commit(store, lane)
    ended = _once()

    def work(transaction: Transaction) -> Receipt:
        receipt = transaction.save(store.transition(new_job()))
        if not ended():
            _end_session_of(transaction)
        return receipt

    receipt = lane.submit(work).result()
    assert receipt.stream_id != before.stream_id
    assert _places(store, "job.create") == {before.stream_id: [2], receipt.stream_id: [2]}
    assert store.rows("SELECT version, record_id FROM job_versions") == [(1, receipt.record_id)]


def test_a_commit_whose_answer_was_lost_is_found_and_not_repeated(proxy: PostgresProxy, store: PostgresStore) -> None:
    """The change was committed, so its callers get their receipts; the stream ends there, because nobody knew."""
    lane = store.lane(url=proxy.url(store.database))
    before = _commit(store, lane)
    proxy.after = _once()
    runs: list[int] = []

    def work(transaction: Transaction) -> Receipt:
        runs.append(1)
        return transaction.save(store.transition(new_job()))

    receipt = lane.submit(work).result()
    assert len(runs) == 1
    assert (receipt.stream_id, receipt.sequence_number) == (before.stream_id, 3)
    assert store.rows("SELECT record_id FROM audit_records WHERE stream_id = ? AND number = 3", before.stream_id) == [
        (receipt.record_id,)
    ]
    assert store.rows("SELECT closed FROM audit_streams WHERE stream_id = ?", before.stream_id) == [(1,)]
    after = _commit(store, lane)
    assert (after.stream_id != before.stream_id, after.sequence_number) == (True, 2)
    assert len(store.committed) == 5


def test_a_commit_that_never_arrived_is_repeated(proxy: PostgresProxy, store: PostgresStore) -> None:
    """The change was not committed, so it is made again, once, in a new stream."""
    lane = store.lane(url=proxy.url(store.database))
    before = _commit(store, lane)
    proxy.before = _once()
    receipt = lane.submit(_saves(store, store.transition(new_job()))).result()
    assert (receipt.stream_id != before.stream_id, receipt.sequence_number) == (True, 2)
    assert store.rows("SELECT version, record_id FROM job_versions") == [(1, receipt.record_id)]
    assert store.rows("SELECT count(*) FROM audit_records WHERE stream_id = ?", before.stream_id) == [(2,)]


def test_the_commit_that_opens_a_stream_can_be_lost_too(proxy: PostgresProxy, store: PostgresStore) -> None:
    """A stream that nobody can see before its first commit is found, or is not there at all."""
    for cut in ("after", "before"):
        lane = store.lane(url=proxy.url(store.database))
        # The first commit of a session makes its settings; the second one opens the stream.
        setattr(proxy, cut, _once(2))
        receipt = _commit(store, lane)
        assert receipt.sequence_number == 2
        assert store.rows("SELECT count(*) FROM audit_records WHERE record_id = ?", receipt.record_id) == [(1,)]
    assert store.rows("SELECT count(*) FROM audit_records WHERE event_name = 'job.create'") == [(2,)]


def _close_when_silent(store: PostgresStore, writer: Any, before: Receipt) -> None:
    """Let a checkpoint close the stream of a lane that has said nothing for longer than its lease."""
    store.clock.advance(11)
    written = writer.write()
    assert written is not None
    assert written.closed == [before.stream_id]


def _is_made_in_another_stream(store: PostgresStore, before: Receipt, receipt: Receipt) -> None:
    assert (receipt.stream_id != before.stream_id, receipt.sequence_number) == (True, 2)
    assert store.rows("SELECT version, record_id FROM job_versions") == [(1, receipt.record_id)]


def test_a_session_that_is_stuck_in_its_commit_is_ended_with_its_stream(
    proxy: PostgresProxy, store: PostgresStore
) -> None:
    """A node that hangs while it holds its stream keeps no checkpoint; its change is made again in another stream."""
    stuck, lane = store.lane("stuck", url=proxy.url(store.database)), store.lane("writer")
    writer = store.checkpoints(lane)
    before = _commit(store, stuck)
    held = threading.Event()

    def hold() -> bool:
        proxy.before = lambda: True
        proxy.thawed.clear()
        held.set()
        return proxy.thawed.wait(60)

    proxy.before = hold
    pending = stuck.submit(_saves(store, store.transition(new_job())))
    assert held.wait(60)
    _close_when_silent(store, writer, before)
    proxy.thawed.set()
    _is_made_in_another_stream(store, before, pending.result())
    writer.write()
    report = store.verify()
    assert (report.verdict, report.findings) == ("intact", ())


def test_a_node_that_was_paused_within_its_transaction_adds_nothing_behind_the_close(store: PostgresStore) -> None:
    """Its stream was closed meanwhile: it finds itself fenced, and does the same again in a new stream."""
    paused, lane = store.lane("paused"), store.lane("writer")
    writer = store.checkpoints(lane)
    before = _commit(store, paused)
    held, go = threading.Event(), threading.Event()

    def work(transaction: Transaction) -> Receipt:
        receipt = transaction.save(store.transition(new_job()))
        held.set()
        go.wait(60)
        return receipt

    pending = paused.submit(work)
    assert held.wait(60)
    _close_when_silent(store, writer, before)
    go.set()
    _is_made_in_another_stream(store, before, pending.result())
    writer.write()
    report = store.verify()
    assert (report.verdict, report.findings) == ("intact", ())


def test_a_server_that_is_away_is_a_reason_to_try_later(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A lane without a server answers at once that nothing was committed, and goes on when the server is back."""
    store = PostgresStore(postgres_server, tmp_path)
    proxy = PostgresProxy(tmp_path, postgres_server.folder)
    lane = store.lane(url=proxy.url(store.database))
    _commit(store, lane)
    proxy.close()
    (tmp_path / ".s.PGSQL.5432").unlink()
    store.execute("SELECT pg_terminate_backend(split_part(session, '@', 1)::int, 5000) FROM audit_streams")
    with pytest.raises(LedgerUnavailableError):
        _commit(store, lane)
    proxy = PostgresProxy(tmp_path, postgres_server.folder)
    assert _commit(store, lane).sequence_number == 2
    poll_until(lambda: store.rows("SELECT count(*) FROM audit_streams") == [(2,)], "the second stream")
    store.close()
    proxy.close()
