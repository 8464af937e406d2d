"""Processes that are paused, killed or misled by their clock while others close their streams: nothing is lost."""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.errors import TryLaterError
from service.ports import Checkpointed
from service.store.sqlite.checkpoints import SqliteCheckpoints
from service.store.sqlite.owners import OwnerLocks
from tests.fault.lane_process import LaneProcess, SteppingClock
from tests.support.poll_until import poll_until
from tests.support.sqlite_stores import SqliteStore


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends whatever process a test has started."""
    with ExitStack() as started:
        yield started


@pytest.fixture
def clock() -> SteppingClock:
    """The clock of the test's own process."""
    return SteppingClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: SteppingClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """The ledger as the test's own process has it, which does not wait long for others."""
    monkeypatch.setattr("service.store.sqlite.connection.BUSY_TIMEOUT_MS", 200)
    store = SqliteStore(tmp_path, clock=clock, instance=9)
    yield store
    store.close()


def _start(processes: ExitStack, ledger: SqliteStore, instance: int) -> LaneProcess:
    return processes.enter_context(LaneProcess(ledger.path.parent, instance))


def _write(writer: SqliteCheckpoints) -> Checkpointed:
    """Write a checkpoint, as soon as the ledger is not busy any more."""
    written: list[Checkpointed] = []

    def attempt() -> bool:
        try:
            result = writer.write()
        except TryLaterError:
            return False
        assert result is not None
        written.append(result)
        return True

    poll_until(attempt, "a checkpoint", timeout_s=60)
    return written[0]


def _expect_intact(ledger: SqliteStore, *processes: LaneProcess) -> None:
    """Every receipt that was given is kept, no stream goes on behind its end, and a stranger finds nothing wrong."""
    report = ledger.verify()
    assert (report.verdict, report.findings) == ("intact", ())
    committed = {row[0]: row[1:] for row in ledger.rows("SELECT record_id, stream_id, number, hash FROM audit_records")}
    for process in processes:
        for receipt in process.receipts:
            assert committed[receipt["record_id"]] == (receipt["stream_id"], receipt["number"], receipt["hash"])


def _streams(process: LaneProcess) -> list[str]:
    return list(dict.fromkeys(receipt["stream_id"] for receipt in process.receipts))


def test_a_process_that_was_paused_finds_itself_fenced_and_loses_nothing(
    processes: ExitStack, ledger: SqliteStore, clock: SteppingClock
) -> None:
    """Stopped between transactions and closed by a checkpoint, it goes on in a new stream; the old one has ended."""
    paused = _start(processes, ledger, 1)
    paused.carry_out("commit", count=5)
    paused.pause()
    (stream_id,) = _streams(paused)
    writer = ledger.checkpoints(ledger.lane())
    assert _write(writer).closed == []
    clock.step(11)
    assert _write(writer).closed == [stream_id]
    paused.order("commit", count=5)
    paused.go_on()
    paused.answer()
    assert len(paused.receipts) == 10
    assert len(_streams(paused)) == 2
    assert ledger.rows("SELECT max(number) FROM audit_records WHERE stream_id = ?", stream_id) == [(6,)]
    _write(writer)
    paused.close()
    _expect_intact(ledger, paused)


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_paused_at_any_moment_loses_nothing(
    processes: ExitStack, ledger: SqliteStore, clock: SteppingClock, seed: int
) -> None:
    """Stopped under load, perhaps in the midst of a transaction, its stream is closed as soon as that can be done."""
    chance = random.Random(seed)
    loaded = _start(processes, ledger, 1)
    writer = ledger.checkpoints(ledger.lane())
    loaded.order("load")
    for turn in range(4):
        seen = len(loaded.receipts) + chance.randint(1, 40)
        poll_until(lambda wanted=seen: len(loaded.receipts) >= wanted, f"receipts of turn {turn}", timeout_s=60)
        loaded.pause()
        clock.step(11)
        try:
            writer.write()
        except TryLaterError:
            # It holds the only lock to write with: nobody writes until it goes on or dies.
            loaded.go_on()
            _write(writer)
        loaded.go_on()
    loaded.order("commit", count=1)
    loaded.answer()
    loaded.answer()
    assert len(_streams(loaded)) > 1
    _write(writer)
    loaded.close()
    _expect_intact(ledger, loaded)


def test_a_killed_process_leaves_a_stream_that_the_next_checkpoint_closes(
    processes: ExitStack, ledger: SqliteStore
) -> None:
    """At once, without waiting for its lease to end: the kernel dropped its lock with it."""
    killed = _start(processes, ledger, 1)
    killed.carry_out("commit", count=3)
    killed.kill()
    assert _write(ledger.checkpoints(ledger.lane())).closed == _streams(killed)
    _expect_intact(ledger, killed)


def test_processes_that_are_killed_under_load_lose_no_receipt(processes: ExitStack, ledger: SqliteStore) -> None:
    """Of several that write and checkpoint, any is killed at any moment; each receipt it gave is kept and anchored."""
    chance = random.Random(7)
    writer = ledger.checkpoints(ledger.lane())
    alive, dead = [_start(processes, ledger, 1), _start(processes, ledger, 2)], list[LaneProcess]()
    for process in alive:
        process.order("load")
    for turn in range(5):
        victim = chance.choice(alive)
        seen = len(victim.receipts) + chance.randint(0, 60)
        poll_until(lambda one=victim, wanted=seen: len(one.receipts) >= wanted, f"turn {turn}", timeout_s=60)
        victim.kill()
        alive.remove(victim)
        dead.append(victim)
        alive.append(_start(processes, ledger, 10 + turn))
        alive[-1].order("load")
        _write(writer)
    for process in alive:
        process.kill()
    written = _write(writer)
    assert set(written.closed) <= {stream_id for process in (*alive, *dead) for stream_id in _streams(process)}
    assert ledger.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(1,)]
    _expect_intact(ledger, *alive, *dead)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_steps_an_hour_breaks_nothing_for_long(
    processes: ExitStack, ledger: SqliteStore, clock: SteppingClock, seconds: int
) -> None:
    """Until two checkpoints later nothing but `record_unanchored` is found, and then nothing; nothing is lost."""
    process = _start(processes, ledger, 1)
    lane = ledger.lane()
    writer = ledger.checkpoints(lane)

    def commit() -> None:
        process.carry_out("commit", count=3)
        lane.submit(lambda transaction: transaction.save(ledger.fact())).result()

    commit()
    _write(writer)
    commit()
    clock.step(seconds)
    process.carry_out("step", seconds=seconds)
    commit()
    assert {finding.code for finding in ledger.verify().findings} <= {"record_unanchored"}
    _write(writer)
    assert {finding.code for finding in ledger.verify().findings} <= {"record_unanchored"}
    _write(writer)
    _expect_intact(ledger, process)
    commit()
    process.close()
    lane.close(writer.write_last)
    _expect_intact(ledger, process)


def test_a_lease_of_before_a_clock_that_stepped_back_holds_nobody_up(
    processes: ExitStack, ledger: SqliteStore, clock: SteppingClock
) -> None:
    """A paused holder of the lease is followed after a step of an hour back too, and its stream is closed."""
    holder = _start(processes, ledger, 1)
    holder.carry_out("commit", count=1)
    assert holder.carry_out("checkpoint")["numbers"] == [1]
    holder.pause()
    writer = ledger.checkpoints(ledger.lane())
    assert writer.write() is None
    clock.step(-3600)
    assert _write(writer).closed == _streams(holder)
    holder.order("commit", count=1)
    holder.go_on()
    holder.answer()
    _expect_intact(ledger, holder)


def test_two_processes_on_one_file_share_the_ledger(processes: ExitStack, ledger: SqliteStore) -> None:
    """They write streams of their own at the same time, one of them checkpoints for both, and both end cleanly."""
    pair = [_start(processes, ledger, instance) for instance in (1, 2)]
    for process in pair:
        process.order("commit", count=100)
    for process in pair:
        process.answer()
    assert pair[0].carry_out("checkpoint")["numbers"] == [1]
    assert pair[1].carry_out("checkpoint")["numbers"] is None
    for process in pair:
        process.order("commit", count=50)
    for process in pair:
        process.answer()
        process.close()
    assert len({stream_id for process in pair for stream_id in _streams(process)}) == 2
    # The first wrote on its end and gave the lease back, so the second could.
    assert ledger.rows("SELECT number FROM audit_checkpoints ORDER BY number") == [(1,), (2,), (3,)]
    report = ledger.verify()
    assert (report.verdict, report.unanchored) == ("intact", 1)
    _expect_intact(ledger, *pair)


def test_an_owner_is_alive_as_long_as_a_child_that_must_die_first(tmp_path: Path) -> None:
    """A lock that a child inherited keeps its owner alive, so that nobody takes over while the child still works."""
    owner, other = OwnerLocks(tmp_path / "ledger.db", "parent"), OwnerLocks(tmp_path / "ledger.db", "other")
    inherited = os.dup(owner.descriptor)
    owner.release()
    assert other.is_alive("parent")
    os.close(inherited)
    assert not other.is_alive("parent")
    other.release()
    assert list(tmp_path.glob("*.owners/*")) == []


@pytest.mark.parametrize("name", ["../precious", "{folder}/precious", "x/../../precious", "", ".", ".."])
def test_an_owner_whose_name_leads_elsewhere_is_dead(tmp_path: Path, name: str) -> None:
    """A name that somebody wrote into the database makes no process touch a file beside the locks."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    locks = OwnerLocks(tmp_path / "ledger.db", "own")
    assert not locks.is_alive(name.format(folder=tmp_path))
    assert precious.read_text() == "kept"
    assert locks.is_alive("own")
    locks.release()
