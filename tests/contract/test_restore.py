"""A database that was set back goes on under numbers that nobody has, and every copy of before stays evidence."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.errors import LedgerBusyError
from service.store.postgres.reconciliation import reconcile as reconcile_postgres
from service.store.restoring import LEFT_OUT
from service.store.sqlite.reconciliation import reconcile as reconcile_sqlite
from telemetry import names
from telemetry.audit.verify import Report, read_copy, verify
from tests.support.both_stores import BOTH, Store
from tests.support.jobs import Record
from tests.support.ledger_maker import KEY
from tests.support.restored import backed_up
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)


class SetBack(NamedTuple):
    """A ledger that was set back to a backup, and what had been delivered of it until then."""

    store: Store
    before: Path

    def verify(self, *, alone: bool = False) -> Report:
        """Return what a stranger finds in all that was ever delivered, or in what the database holds alone."""
        after = self.before.with_name("after.jsonl")
        after.write_text("".join(f"{line}\n" for line in self.store.archive()))
        return verify(read_copy([after] if alone else [self.before, after]), public_keys=[KEY.public_key()])

    def wrong(self) -> list[str]:
        """Return what `doctor --ledger` finds, apart from the clock of the tests."""
        if isinstance(self.store, SqliteStore):
            found = reconcile_sqlite(self.store.path, SECRET)
        else:
            found = reconcile_postgres(self.store.url, SECRET)
        return [f"{one.check}: {one.place}: {one.detail}" for one in found if "ledger_now_ns" not in one.place]


def _fact(store: Store, lane: Any) -> None:
    lane.submit(lambda transaction: transaction.save(store.fact())).result()


@pytest.fixture
def set_back(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SetBack]:
    """A restored ledger: in the time that was lost its stream grew, another one was begun, and checkpoints came."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    _fact(store, lane)
    writer.write()
    _fact(store, lane)
    restore = backed_up(store, tmp_path, request)
    _fact(store, lane)
    other = store.lane("other")
    _fact(store, other)
    writer.write()
    _fact(store, other)
    lane.close(writer.write_last)
    other.close()
    before = tmp_path / "before.jsonl"
    before.write_text("".join(f"{line}\n" for line in store.archive()))
    store.clock.advance(3600)
    restored = restore()
    yield SetBack(restored, before)
    restored.close()


def _checkpoints(store: Store) -> Sequence[int]:
    return [row[0] for row in store.rows("SELECT number FROM audit_checkpoints ORDER BY number")]


def test_without_a_word_about_the_restore_numbers_are_used_twice(set_back: SetBack) -> None:
    """What the command is for: a process that just goes on makes copies contradict each other."""
    lane = set_back.store.lane("after")
    set_back.store.checkpoints(lane).write()
    lane.close()
    codes = {finding.code for finding in set_back.verify().findings}
    assert "checkpoint_number_reused" in codes


def test_a_ledger_that_was_set_back_goes_on_and_all_copies_verify(set_back: SetBack) -> None:
    """Its streams are closed where they stand, no number is used again, and what was lost is counted as such."""
    store = set_back.store
    lane = store.lane("after")
    writer = store.checkpoints(lane)
    done = writer.restore()
    assert len(done.closed) == 1
    (first,) = done.numbers
    assert first > LEFT_OUT
    assert _checkpoints(store) == [1, first]
    _fact(store, lane)
    lane.close(writer.write_last)
    assert _checkpoints(store) == [1, first, first + 1]
    alone = set_back.verify(alone=True)
    assert (alone.verdict, alone.findings, alone.lost) == ("intact", (), 0)
    report = set_back.verify()
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.lost == report.records - alone.records
    assert set_back.wrong() == []


def test_the_fork_is_a_record(set_back: SetBack) -> None:
    """Who reads the trail sees that the database was set back, behind which checkpoint, and how many streams ended."""
    lane = set_back.store.lane("after")
    done = set_back.store.checkpoints(lane).restore()
    sql = "SELECT body FROM audit_records WHERE event_name = 'audit.restore'"
    ((body,),) = set_back.store.rows(sql)
    record = Record(body)
    assert record.changes == {"checkpoint": {"from": 1, "to": done.numbers[0]}, "streams": {"to": 1}}
    assert record.attributes[names.AUDIT_ACTOR_ID] == "alice"
    lane.close()


def test_a_restore_that_is_told_twice_leaves_out_more(set_back: SetBack) -> None:
    """The command may be given again: nothing is used twice, and all copies verify."""
    for owner in ("first", "second"):
        lane = set_back.store.lane(owner)
        writer = set_back.store.checkpoints(lane)
        writer.restore()
        lane.close(writer.write_last)
    report = set_back.verify()
    assert (report.verdict, report.findings) == ("intact", ())


def test_a_database_at_work_is_left_alone(store: Store) -> None:
    """While a process lives that writes to it nothing is closed under its hands."""
    lane = store.lane()
    store.checkpoints(lane).write()
    other = store.lane("operator")
    with pytest.raises(LedgerBusyError, match=r"work.*: stop every process"):
        store.checkpoints(other).restore()
    assert store.rows("SELECT count(*) FROM audit_streams WHERE closed = 1") == [(0,)]
    assert _checkpoints(store) == [1]


def test_a_checkpoint_that_leaves_numbers_out_says_behind_which_one(store: Store) -> None:
    """The database takes no checkpoint with a number ahead unless its record states the fork."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    writer.write()
    columns = "record_id, hash, signature, fingerprint, streams, records, observed_ns, mac"
    with pytest.raises(store.refusal, match="checkpoint"):
        store.execute(f"INSERT INTO audit_checkpoints (number, {columns}) SELECT 7, {columns} FROM audit_checkpoints")
