"""The verification that a service makes of its own ledger: what was added since the last time, and nothing twice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pytest

from service.errors import LedgerUnavailableError
from service.ports import Ledger, StoredRecord
from service.selfcheck import ROWS_AT_ONCE, SelfCheck
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, Store
from tests.support.collector import poll_until
from tests.support.ledger_maker import FOREIGN_KEY, KEY

pytestmark = pytest.mark.stores(*BOTH)

INTERVAL_S = 60.0


class Rig:
    """A ledger with one lane and its checkpoint writer, and the self-verification of that process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_s = 1000.0
        self.is_wanted = True
        self.lane = store.lane()
        self.writer = store.checkpoints(self.lane)
        assert self.writer.hold()
        self.check = self.new_check()

    def new_check(self, reads: Any = None, interval_s: float = INTERVAL_S) -> SelfCheck:
        """Return a self-verification that knows nothing yet."""
        return SelfCheck(
            reads or self.store.reads,
            self.writer.registered,
            lambda: self.is_wanted,
            interval_s,
            lambda: self.now_s,
        )

    def commit(self, count: int = 1, lane: Ledger | None = None) -> str:
        """Commit facts and return their stream."""
        ledger = lane or self.lane
        receipts = [
            ledger.submit(lambda transaction: transaction.save(self.store.fact())).result() for _ in range(count)
        ]
        return receipts[-1].stream_id

    def checkpoint(self) -> None:
        """Write a checkpoint."""
        assert self.writer.write() is not None

    def findings(self) -> int:
        """Take a turn and return how many findings there are."""
        self.check.turn()
        return self.check.state().findings


@pytest.fixture
def rig(store: Store) -> Iterator[Rig]:
    """A ledger whose first records are covered by a checkpoint."""
    made = Rig(store)
    made.commit(3)
    made.checkpoint()
    yield made
    made.check.stop()


def test_an_intact_ledger_never_gives_a_finding(rig: Rig) -> None:
    """Turn after turn, with and without new records and checkpoints, in several streams, closed ones included."""
    other = rig.store.lane("other")
    for turn in range(1, 4):
        rig.commit(turn)
        rig.commit(turn, other)
        assert rig.findings() == 0
        rig.checkpoint()
        assert rig.findings() == 0
        assert rig.findings() == 0
    other.close()
    rig.checkpoint()
    assert rig.findings() == 0
    assert rig.check.state().error is None


def test_before_the_first_checkpoint_there_is_nothing_to_begin_at(store: Store) -> None:
    """A ledger without a checkpoint is not called verified."""
    rig = Rig(store)
    rig.commit()
    assert rig.findings() == 0
    assert rig.check.state().age_s is None


def edit(connection: Any, stream_id: str, number: int) -> None:
    """Change a record as it is shown, and as it is delivered."""
    connection.execute(
        "UPDATE audit_records SET body = replace(body, 'alice', 'mallory') WHERE stream_id = ? AND number = ?",
        (stream_id, number),
    )


def drop(connection: Any, stream_id: str, number: int) -> None:
    """Remove a record."""
    connection.execute("DELETE FROM audit_records WHERE stream_id = ? AND number = ?", (stream_id, number))


def garble(connection: Any, stream_id: str, number: int) -> None:
    """Write something else over a record."""
    connection.execute(
        "UPDATE audit_records SET body = '{}', otlp = ? WHERE stream_id = ? AND number = ?", (b"x", stream_id, number)
    )


Tampering: TypeAlias = Callable[[Any, str, int], None]


@pytest.mark.parametrize("tampering", [edit, drop, garble])
@pytest.mark.parametrize("is_anchored", [False, True])
def test_a_change_of_what_was_added_is_found_by_the_next_turn(
    rig: Rig, tampering: Tampering, is_anchored: bool
) -> None:
    """Whether or not a checkpoint covers the record already, the finding says where, and stays."""
    assert rig.findings() == 0
    stream_id = rig.commit(3)
    ((number,),) = rig.store.rows("SELECT max(number) - 1 FROM audit_records WHERE stream_id = ?", stream_id)
    if is_anchored:
        rig.checkpoint()
    with rig.store.attacking() as connection:
        tampering(connection, stream_id, number)
    found = rig.findings()
    assert found > 0
    assert stream_id in str(rig.check.state().first)
    rig.commit()
    assert rig.findings() >= found


def test_a_turn_reads_only_what_is_behind_the_last_one(rig: Rig) -> None:
    """Records that a checkpoint of an earlier turn covers are not read again."""
    reads = Counting(rig.store)
    rig.check = rig.new_check(reads)
    assert rig.findings() == 0
    rig.commit(ROWS_AT_ONCE + 10)
    rig.checkpoint()
    assert rig.findings() == 0
    before = reads.count
    assert before > ROWS_AT_ONCE
    rig.commit(2)
    assert rig.findings() == 0
    # The two, and the checkpoint itself, which only the next one covers.
    assert reads.count - before <= 5


class Counting:
    """Reads of a store that count the records which are read."""

    def __init__(self, store: Store) -> None:
        self._reads = store.reads
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reads, name)

    def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
        stored = self._reads.stored_of_stream(stream_id, first, last, limit)
        self.count += len(stored)
        return stored


def test_what_is_before_the_start_is_not_looked_at(rig: Rig) -> None:
    """The limit of it: an older record is the business of `auditrace verify --database`."""
    stream_id = rig.commit()
    rig.checkpoint()
    with rig.store.attacking() as connection:
        edit(connection, stream_id, 2)
    assert rig.findings() == 0


@pytest.mark.parametrize("behind", ["checkpoints", "streams"])
def test_a_checkpoint_that_is_written_while_a_turn_reads_gives_no_false_alarm(
    rig: Rig, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed behind the last checkpoint, or the first streams, that were seen belongs to the next turn."""
    monkeypatch.setattr("service.selfcheck.STREAMS_AT_ONCE", 1)
    other = rig.store.lane("other")
    rig.commit(1, other)
    rig.checkpoint()
    assert rig.findings() == 0

    class Late(Counting):
        def checkpoints(self, cursor: str | None, limit: int) -> Any:
            page = self._reads.checkpoints(cursor, limit)
            if behind == "checkpoints":
                write()
            return page

        def streams(self, cursor: str | None, limit: int) -> Any:
            page = self._reads.streams(cursor, limit)
            if behind == "streams":
                write()
            return page

    def write() -> None:
        rig.commit(2)
        rig.commit(2, other)
        rig.checkpoint()

    for reads in (Late(rig.store), Late(rig.store), rig.store.reads, rig.store.reads):
        rig.check._reads = reads
        assert rig.findings() == 0
        write()
    assert rig.check.state().error is None


def test_a_rotation_is_no_finding(rig: Rig) -> None:
    """Checkpoints before and after a change of the signing key verify, each with the key of its time."""
    new = Signer(FOREIGN_KEY)
    assert rig.findings() == 0
    rig.writer = rig.store.checkpoints(rig.lane, Signer(KEY), new)
    assert rig.writer.hold()
    rig.check._keys = rig.writer.registered
    rig.commit()
    rig.writer.rotate(new)
    rig.commit()
    rig.checkpoint()
    assert rig.findings() == 0
    rig.commit()
    rig.checkpoint()
    assert rig.findings() == 0


def test_the_age_counts_from_the_last_turn_that_went_through(rig: Rig) -> None:
    """A turn that fails says why and changes neither age nor findings; the next one begins where it began."""
    rig.check.turn()
    rig.now_s += 30
    assert rig.check.state().age_s == 30

    class Away(Counting):
        def stored_of_stream(self, stream_id: str, first: int, last: int, limit: int) -> Sequence[StoredRecord]:
            raise LedgerUnavailableError("away")

    rig.check._reads = Away(rig.store)
    rig.commit()
    with pytest.raises(LedgerUnavailableError):
        rig.check.turn()
    assert rig.check.state().age_s == 30
    rig.check._reads = rig.store.reads
    rig.check.turn()
    assert rig.check.state().age_s == 0


def test_only_the_process_that_writes_checkpoints_verifies(rig: Rig) -> None:
    """Another one says nothing of the age, and begins anew when its time comes."""
    rig.check.turn()
    rig.is_wanted = False
    rig.commit(3)
    rig.check.turn()
    assert rig.check.state().age_s is None
    rig.is_wanted = True
    assert rig.findings() == 0
    assert rig.check.state().age_s == 0


def test_the_thread_takes_turns_and_ends(rig: Rig) -> None:
    """Started, it verifies by itself; stopped, it is gone."""
    check = rig.new_check(interval_s=0.01)
    check.start()
    poll_until(lambda: check.state().age_s is not None, "the first verification")
    stream_id = rig.commit(2)
    with rig.store.attacking() as connection:
        edit(connection, stream_id, 5)
    poll_until(lambda: check.state().findings > 0, "the finding")
    check.stop()
    assert not check._thread.is_alive()
