"""That changes cannot be committed is noticed although the ledger can be read, and that they can be again."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.errors import LedgerUnavailableError
from service.store.writability import CERTAIN_S, WatchedLedger
from telemetry import names
from tests.support.both_stores import BOTH, POSTGRES, Store
from tests.support.ids import Seconds
from tests.support.outages import OUTAGES
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import new_job


class Watch:
    """A watched lane, and a clock by which nothing is certain any more once it was moved."""

    def __init__(self, store: Store, lane: Any) -> None:
        self.clock = Seconds()
        self.lane = lane
        self.ledger = WatchedLedger(self.lane, lambda: store.system_record(names.EVENT_AUDIT_STREAM_OPEN), self.clock)

    def problem(self) -> str | None:
        """Return what is wrong, long after the last change."""
        self.clock.now += 2 * CERTAIN_S
        return self.ledger.problem()


@pytest.fixture
def watch(store: Store) -> Watch:
    """A lane that has a stream, watched."""
    watched = Watch(store, store.lane())
    watched.ledger.submit(lambda transaction: transaction.save(store.fact())).result()
    return watched


on_both = pytest.mark.stores(*BOTH)


@pytest.mark.parametrize(("store_kind", "outage"), OUTAGES)
def test_a_ledger_that_takes_no_change_says_so_and_recovers(
    store: Store, watch: Watch, store_kind: str, outage: str
) -> None:
    """Without any request: a trial finds it out, and the next one that it is over; neither leaves a record."""
    assert watch.problem() is None
    before = store.rows("SELECT count(*) FROM audit_records WHERE event_name <> 'audit.stream.open'")
    enter, _ = OUTAGES[store_kind, outage]
    with enter(store, watch.lane):
        assert "changes cannot be committed: " in (watch.problem() or "")
        assert store.reads.outbox().depth >= 1
    assert watch.problem() is None
    assert store.rows("SELECT count(*) FROM audit_records WHERE event_name <> 'audit.stream.open'") == before
    assert store.verify().findings == ()


@pytest.mark.parametrize(("store_kind", "outage"), OUTAGES)
def test_the_reason_names_no_place(store: Store, watch: Watch, store_kind: str, outage: str) -> None:
    """Who has shown no credential learns what is wrong, and not where: no host, no port, no path."""
    enter, _ = OUTAGES[store_kind, outage]
    with enter(store, watch.lane):
        said = watch.problem() or ""
    assert said
    assert "/" not in said
    assert not any(character.isdigit() for character in said)


@on_both
def test_a_trial_leaves_no_record_and_takes_no_number(store: Store, watch: Watch) -> None:
    """However often it is made: the next record follows on the last one."""
    for _ in range(3):
        assert watch.problem() is None
    receipt = watch.ledger.submit(lambda transaction: transaction.save(store.fact())).result()
    assert receipt.sequence_number == 3
    assert store.rows("SELECT count(*) FROM audit_records") == [(3,)]


@on_both
def test_nothing_is_tried_while_changes_are_committed(store: Store, watch: Watch) -> None:
    """A change that was committed lately is proof enough; one that failed puts an end to that."""
    with _table_gone(store):
        assert watch.ledger.problem() is None
        failure = watch.ledger.submit(lambda transaction: transaction.save(store.fact())).exception()
        assert failure is not None
        assert watch.ledger.problem() is not None


@on_both
def test_a_change_that_is_refused_for_what_it_says_is_no_failure(store: Store, watch: Watch) -> None:
    """The ledger did its part: only the work raised."""

    def refused(_: object) -> None:
        raise KeyError("the work's own")

    assert isinstance(watch.ledger.submit(refused).exception(), KeyError)
    with _table_gone(store):
        assert watch.ledger.problem() is None


@on_both
def test_the_log_says_once_that_changes_fail_and_once_that_they_do_not(
    store: Store, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what the database said; a readiness that is asked every second adds nothing."""
    caplog.set_level(logging.WARNING, "service.store.writability")
    with _table_gone(store):
        for _ in range(3):
            assert watch.problem() is not None
    assert watch.problem() is None
    assert watch.problem() is None
    said = [record.getMessage() for record in caplog.records if record.name == "service.store.writability"]
    assert len(said) == 2
    assert "audit_records" in said[0]
    assert said[1] == "changes are committed again"


@on_both
def test_there_is_one_trial_at_a_time(store: Store, watch: Watch) -> None:
    """While a lane is stuck everybody who asks is told so, and no more work waits behind it than one trial."""
    del store
    held, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        go.wait(60)

    pending = watch.lane.submit(hold)
    assert held.wait(60)
    watch.clock.now += 2 * CERTAIN_S
    asked = threading.Thread(target=watch.ledger.problem)
    asked.start()
    watch.clock.now += 10
    said = watch.ledger.problem()
    assert "do not come to an end" in (said or "")
    go.set()
    pending.result()
    asked.join()


@pytest.mark.stores(POSTGRES)
@pytest.mark.parametrize("table", ["audit_records", "audit_streams"])
def test_a_right_that_was_revoked_is_noticed(store: PostgresStore, table: str) -> None:
    """As an operator does by mistake: changes are 503 and not an internal error, until it is given back."""
    store.execute("DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    store.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain")
    store.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain")
    watched = Watch(store, store.lane(url=store.url.replace("user=auditrace", "user=plain")))
    assert watched.problem() is None
    store.execute(f"REVOKE INSERT, UPDATE ON {table} FROM plain")
    failure = watched.ledger.submit(lambda transaction: transaction.save(store.transition(new_job()))).exception()
    assert isinstance(failure, LedgerUnavailableError)
    # Time for the lane to say that it is alive, as it does every two seconds.
    store.clock.advance(3)
    assert "lacks a right" in (watched.problem() or "")
    store.execute(f"GRANT INSERT, UPDATE ON {table} TO plain")
    assert watched.problem() is None


@contextmanager
def _table_gone(store: Store) -> Iterator[None]:
    """Lets nothing be added to the records, for a reason that does not pass by itself."""
    store.execute("ALTER TABLE audit_records RENAME TO audit_records_elsewhere")
    yield
    store.execute("ALTER TABLE audit_records_elsewhere RENAME TO audit_records")
