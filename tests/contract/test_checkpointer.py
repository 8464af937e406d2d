"""The schedule of checkpoints, on real stores: a heartbeat that nothing stops but the end of its process."""

import logging
from collections.abc import Iterator, Sequence

import pytest

from service.checkpointer import Checkpointer
from service.ports import CheckpointWriter
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY
from tests.support.outages import leases_locked
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

INTERVAL_S = 60.0


class ManualMonotonic:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Turns:
    """Starts checkpointers whose turns follow one another without delay, and stops them at the end of a test."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.monotonic = ManualMonotonic()
        self._started: list[Checkpointer] = []

    def start(self, writer: CheckpointWriter) -> Checkpointer:
        """Start the checkpointer of a process."""
        checkpointer = Checkpointer(writer, INTERVAL_S, self.store.clock, self.monotonic, renew_s=0.01)
        checkpointer.start()
        self._started.append(checkpointer)
        return checkpointer

    def reaches(self, checkpointer: Checkpointer, number: int) -> None:
        """Wait until the checkpointer has seen this checkpoint."""
        poll_until(lambda: checkpointer.state().number == number, f"checkpoint {number}")

    def renews(self) -> None:
        """Wait until the lease was renewed twice, so that one turn lies between."""
        for _ in range(2):
            before = self._leases()
            poll_until(lambda known=before: self._leases() != known, "a renewal")

    def _leases(self) -> Sequence[tuple[int]]:
        # Read, the clock moves on: a renewal ends later than the one before.
        self.store.clock()
        return self.store.rows("SELECT until_ns FROM leases")

    def stop(self) -> None:
        """Stop what was started."""
        for checkpointer in self._started:
            checkpointer.stop()


@pytest.fixture
def turns(store: Store) -> Iterator[Turns]:
    """Checkpointers on the test's ledger."""
    made = Turns(store)
    yield made
    made.stop()


def test_a_checkpoint_is_written_at_the_start_and_then_each_interval_idle_or_not(turns: Turns) -> None:
    """The last checkpoint is never older than the interval, whether or not something happened, and none is extra."""
    checkpointer = turns.start(turns.store.checkpoints(turns.store.lane()))
    turns.reaches(checkpointer, 1)
    for number in (2, 3):
        turns.monotonic.now_s += INTERVAL_S - 1
        turns.renews()
        assert checkpointer.state().number == number - 1
        turns.monotonic.now_s += 1
        turns.reaches(checkpointer, number)
    assert turns.store.verify().verdict == "intact"


def test_one_process_writes_and_the_others_stand_by(turns: Turns) -> None:
    """Of several checkpointers one writes; all know the last checkpoint; when the writer dies another goes on."""
    store = turns.store
    lanes = [store.lane(f"node-{n}") for n in range(2)]
    first = turns.start(store.checkpoints(lanes[0]))
    turns.reaches(first, 1)
    second = turns.start(store.checkpoints(lanes[1]))
    turns.reaches(second, 1)
    assert (first.state().is_writer, second.state().is_writer) == (True, False)
    first.stop()
    store.kill(lanes[0])
    turns.reaches(second, 2)
    assert second.state().is_writer


def test_a_busy_ledger_delays_a_checkpoint_and_no_more(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    """While another writer holds the database the problem is reported and logged once; then the checkpoint follows."""
    writer = turns.store.checkpoints(turns.store.lane())
    checkpointer = turns.start(writer)
    turns.reaches(checkpointer, 1)
    with leases_locked(turns.store, writer):
        turns.monotonic.now_s += INTERVAL_S
        poll_until(lambda: checkpointer.state().error is not None, "the problem")
        assert "busy" in str(checkpointer.state().error)
        assert checkpointer.state().number == 1
    turns.reaches(checkpointer, 2)
    poll_until(lambda: checkpointer.state().error is None, "the end of the problem")
    held_up = [record for record in caplog.records if "held up" in record.message]
    assert [record.levelno for record in held_up] == [logging.ERROR]


def test_a_process_without_the_private_key_says_so_and_lets_others_write(turns: Turns) -> None:
    """It reports what is wrong with its settings, and what the others wrote all the same."""
    store = turns.store
    keeper = store.checkpoints(store.lane("keeper"))
    stranger = turns.start(store.checkpoints(store.lane("stranger"), Signer(FOREIGN_KEY)))
    poll_until(lambda: stranger.state().error is not None, "the problem")
    assert "whose private key this process lacks: put its file where AUDITRACE_SIGNING_KEY" in str(
        stranger.state().error
    )
    turns.reaches(turns.start(keeper), 1)
    turns.reaches(stranger, 1)
    assert stranger.state().error is not None


def test_refused_streams_are_reported_by_every_process(turns: Turns) -> None:
    """Whoever wrote the checkpoint that refused a stream, each process says which one and why."""
    store = turns.store
    victim = store.lane("victim")
    receipt = victim.submit(lambda transaction: transaction.save(store.fact())).result()
    with store.attacking() as connection:
        connection.execute("UPDATE audit_streams SET mac = 'forged'")
    checkpointers = [turns.start(store.checkpoints(store.lane(f"node-{n}"))) for n in range(2)]
    for checkpointer in checkpointers:
        turns.reaches(checkpointer, 1)
        assert [one.stream_id for one in checkpointer.state().refused] == [receipt.stream_id]


def test_the_lease_is_kept_for_the_last_checkpoint(turns: Turns) -> None:
    """A checkpointer that was stopped leaves the lease with its process, which writes once more behind the close."""
    store = turns.store
    lane, standby = store.lane("stopping"), store.lane("standby")
    writer, other = store.checkpoints(lane), store.checkpoints(standby)
    checkpointer = turns.start(writer)
    turns.reaches(checkpointer, 1)
    checkpointer.stop()
    assert not other.hold()
    lane.close(writer.write_last)
    assert store.rows("SELECT max(number) FROM audit_checkpoints") == [(2,)]
    assert other.hold()


def test_a_command_that_ends_leaves_its_stream_to_the_process_that_holds_the_lease(turns: Turns) -> None:
    """It writes a last checkpoint only when nobody else does; else the other's next one names its closed stream."""
    store = turns.store
    checkpointer = turns.start(store.checkpoints(store.lane("serving")))
    turns.reaches(checkpointer, 1)
    command = store.lane("command")
    stream_id = command.submit(lambda transaction: transaction.save(store.fact())).result().stream_id
    command.close(store.checkpoints(command).write_last)
    assert store.rows("SELECT max(number) FROM audit_checkpoints") == [(1,)]
    turns.monotonic.now_s += INTERVAL_S
    turns.reaches(checkpointer, 2)
    assert store.rows("SELECT number, closed FROM audit_anchors WHERE stream_id = ?", stream_id) == [(3, 1)]
    assert store.verify().verdict == "intact"
