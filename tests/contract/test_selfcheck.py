"""The verification that a service makes of its own ledger: what was added since the last time, and nothing twice."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from service.bootstrap.databases import database_of
from service.errors import LedgerUnavailableError
from service.ports import Ledger, StoredRecord
from service.selfcheck import SelfCheck
from service.selfcheck.added import ROWS_AT_ONCE
from telemetry.audit.signer import Signer
from telemetry.audit.verify import Finding, Found
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.poll_until import poll_until

pytestmark = pytest.mark.stores(*BOTH)

INTERVAL_S = 60.0


class Rig:
    """A ledger with one lane and its checkpoint writer, and the self-verification of that process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_s = 1000.0
        self.is_wanted = True
        self.asked = 0
        self.lane = store.lane()
        self.writer = store.checkpoints(self.lane)
        assert self.writer.hold()
        self.check = self.new_check()

    def new_check(self, reads: Any = None, interval_s: float = INTERVAL_S) -> SelfCheck:
        """Return a self-verification that knows nothing yet."""
        return SelfCheck(
            reads or self.store.reads,
            self.records,
            self.writer.registered,
            lambda: self.is_wanted,
            interval_s,
            lambda: self.now_s,
        )

    def records(self) -> Iterator[Found]:
        """Read the whole ledger, and count that."""
        self.asked += 1
        return database_of(self.store.database).records()

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

    def require_nothing(self) -> None:
        """Take a turn that finds nothing: not even something that the whole ledger would have to deny."""
        asked = self.asked
        assert self.findings() == 0
        assert self.asked == asked


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
        rig.require_nothing()
        rig.checkpoint()
        rig.require_nothing()
        rig.require_nothing()
    other.close()
    rig.checkpoint()
    rig.require_nothing()
    assert rig.check.state().error is None


def test_before_the_first_checkpoint_there_is_nothing_to_begin_at(store: Store) -> None:
    """A ledger without a checkpoint is not called verified."""
    rig = Rig(store)
    rig.commit()
    rig.require_nothing()
    assert rig.check.state().age_s is None


def edit(connection: Any, stream_id: str, number: int) -> None:
    """Change a record as it is shown."""
    connection.execute(
        "UPDATE audit_records SET body = replace(body, 'alice', 'mallory') WHERE stream_id = ? AND number = ?",
        (stream_id, number),
    )


def mend(connection: Any, stream_id: str, number: int) -> None:
    """Take the change back."""
    connection.execute(
        "UPDATE audit_records SET body = replace(body, 'mallory', 'alice') WHERE stream_id = ? AND number = ?",
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
    rig.require_nothing()
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


@pytest.mark.parametrize("grows", [False, True])
def test_a_stream_that_somebody_else_closes_gives_no_finding(rig: Rig, grows: bool) -> None:
    """A process that dies without a word leaves a stream which the next checkpoint closes, whether or not it grew."""
    other = rig.store.lane("other")
    rig.commit(2, other)
    rig.checkpoint()
    rig.require_nothing()
    if grows:
        rig.commit(1, other)
    rig.store.kill(other)

    def is_closed() -> bool:
        rig.checkpoint()
        rig.require_nothing()
        closed = rig.store.rows("SELECT count(*) FROM audit_anchors WHERE closed = 1") == [(1,)]
        if not closed:
            # The lane's thread, which no signal ends here, said once more that it lives.
            rig.store.kill(other)
        return closed

    poll_until(is_closed, "a checkpoint that closes the stream")
    for _ in range(2):
        rig.require_nothing()
        rig.commit()
        rig.checkpoint()
    assert rig.check.state().error is None


def tampered(rig: Rig, tampering: Tampering = edit, count: int = 3) -> tuple[str, int]:
    """Commit records, change the last but one of them, and return where it is."""
    stream_id = rig.commit(count)
    ((number,),) = rig.store.rows("SELECT max(number) - 1 FROM audit_records WHERE stream_id = ?", stream_id)
    with rig.store.attacking() as connection:
        tampering(connection, stream_id, number)
    return stream_id, number


def test_an_alarm_whose_cause_is_gone_ends_by_itself(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Once a verification of the whole ledger finds nothing, nothing is reported any more, and one line says so."""
    assert rig.findings() == 0
    stream_id, number = tampered(rig)
    assert rig.findings() > 0
    first = rig.check.state().first
    assert str(first) in caplog.text
    with rig.store.attacking() as connection:
        mend(connection, stream_id, number)
    rig.checkpoint()
    rig.now_s += INTERVAL_S
    assert rig.findings() == 0
    state = rig.check.state()
    assert (state.first, state.command, state.error) == (None, None, None)
    again = [message for message in caplog.messages if "verifies again" in message]
    assert len(again) == 1
    assert str(first) in again[0]
    assert rig.findings() == 0
    # What is added afterwards is looked at as ever.
    tampered(rig)
    assert rig.findings() > 0


def test_a_ledger_that_is_broken_stays_an_alarm(rig: Rig) -> None:
    """However often it is asked, and whatever is added and covered meanwhile."""
    rig.check.turn()
    stream_id, number = tampered(rig)
    for _ in range(12):
        assert rig.findings() > 0
        rig.commit()
        rig.now_s += 2 * 86_400
    assert f"{stream_id}:{number}" in str(rig.check.state().first)
    assert rig.asked == 12


def test_the_whole_ledger_is_asked_ever_less_often(rig: Rig) -> None:
    """Never without a finding; at once for the first one; then after pauses that double, up to a day."""
    rig.check.turn()
    assert rig.asked == 0
    tampered(rig)
    rig.check.turn()
    pauses_s = [min(INTERVAL_S * 2**at, 86_400) for at in range(14)]
    assert pauses_s[-1] == 86_400
    for asked, pause_s in enumerate(pauses_s, 1):
        rig.now_s += pause_s - 1
        rig.check.turn()
        assert rig.asked == asked
        rig.now_s += 1
        rig.check.turn()
        assert rig.asked == asked + 1


def test_the_whole_ledger_is_asked_for_a_twentieth_of_the_time(rig: Rig) -> None:
    """A verification that took ten minutes is followed by none for 200, so that a large ledger costs no more."""
    rig.check.turn()
    tampered(rig)
    read = rig.records

    def slow() -> Iterator[Found]:
        rig.now_s += 600
        return read()

    rig.check._records = slow
    rig.check.turn()
    assert rig.asked == 1
    rig.now_s += 20 * 600 - 1
    rig.check.turn()
    assert rig.asked == 1
    rig.now_s += 1
    rig.check.turn()
    assert rig.asked == 2


def test_what_else_the_whole_ledger_shows_is_reported_too(rig: Rig) -> None:
    """An alarm whose cause is gone goes on with what is wrong in what no turn has looked at."""
    stream_id = rig.commit(3)
    rig.checkpoint()
    with rig.store.attacking() as connection:
        edit(connection, stream_id, 2)
    rig.require_nothing()
    new = tampered(rig)
    assert rig.findings() > 0
    with rig.store.attacking() as connection:
        mend(connection, *new)
    rig.now_s += INTERVAL_S
    assert rig.findings() > 0
    places = {(finding.stream_id, finding.number) for finding in rig.check._alarm.findings}
    assert (stream_id, 2) in places
    assert new not in places
    assert "--behind" not in str(rig.check.state().command)


def test_what_is_added_while_the_whole_ledger_is_read_is_looked_at(rig: Rig) -> None:
    """A long verification keeps the turns from nothing, and does not drop what they find meanwhile."""
    rig.check.turn()
    where = tampered(rig)
    read = rig.records

    def long() -> Iterator[Found]:
        for at, one in enumerate(read()):
            yield one
            if at == 1 and rig.asked == 2:
                tampered(rig)
                rig.now_s += INTERVAL_S

    rig.check._records = long
    assert rig.findings() > 0
    with rig.store.attacking() as connection:
        mend(connection, *where)
    rig.now_s += INTERVAL_S
    assert rig.findings() > 0
    assert rig.asked == 2
    assert rig.check.state().age_s == 0


def test_a_process_that_verifies_no_more_still_ends_its_alarm(rig: Rig) -> None:
    """Another one writes checkpoints by now: what this one found is asked again all the same."""
    rig.check.turn()
    where = tampered(rig)
    assert rig.findings() > 0
    rig.is_wanted = False
    with rig.store.attacking() as connection:
        mend(connection, *where)
    rig.now_s += INTERVAL_S
    assert rig.findings() == 0
    assert rig.check.state().age_s is None


def test_an_alarm_stays_while_the_whole_ledger_cannot_be_read(rig: Rig) -> None:
    """Not to be able to look is no denial."""
    rig.check.turn()
    where = tampered(rig)
    assert rig.findings() > 0
    with rig.store.attacking() as connection:
        mend(connection, *where)
    rig.now_s += INTERVAL_S
    read, rig.check._records = rig.records, away
    with pytest.raises(LedgerUnavailableError):
        rig.check.turn()
    assert rig.check.state().findings > 0
    rig.check._records = read
    rig.now_s += 10 * INTERVAL_S
    assert rig.findings() == 0


def away() -> Iterator[Found]:
    """Read from a database that is away."""
    raise LedgerUnavailableError("away")


def findings_of(rig: Rig, folder: Path) -> set[Finding]:
    """Run the command that the state names, and return what it prints, apart from places."""
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    secret = folder / "keys" / "ledger.secret"
    secret.touch(mode=0o600)
    secret.write_bytes(b"s" * 32)
    ran = subprocess.run(
        ["/bin/sh", "-c", f"{rig.check.state().command} --json"],
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "AUDITRACE_DATABASE": rig.store.database,
            "AUDITRACE_LEDGER_SECRET": str(secret),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    return {Finding(**{**one, "place": None}) for one in json.loads(ran.stdout)["findings"]}


@pytest.mark.parametrize("tampering", [edit, drop, garble])
@pytest.mark.parametrize("is_asked", [False, True])
def test_the_command_that_is_reported_prints_the_same_findings(
    rig: Rig, tmp_path: Path, tampering: Tampering, is_asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The window that was looked at has a command of its own, in the log and in the state, with the keys it needs.

    It is that of the whole ledger as soon as that was asked.
    """
    rig.commit(3)
    rig.checkpoint()
    rig.require_nothing()
    tampered(rig, tampering)
    rig.check._alarm._due_s = 0 if is_asked else rig.now_s + 1
    assert rig.findings() > 0
    command = str(rig.check.state().command)
    assert ("--behind 2 " in command) == (not is_asked)
    assert (
        "auditrace keys public --all | auditrace verify --database --behind 2 --public-key /dev/stdin"
    ) in caplog.text
    found = {Finding(**{**as_dict(one), "place": None}) for one in rig.check._alarm.findings}
    assert findings_of(rig, tmp_path) == found


def as_dict(finding: Finding) -> dict[str, Any]:
    """Return the members of a finding."""
    return {name: getattr(finding, name) for name in Finding.__struct_fields__}


def test_a_turn_reads_only_what_is_behind_the_last_one(rig: Rig) -> None:
    """Records that a checkpoint of an earlier turn covers are not read again."""
    reads = Counting(rig.store)
    rig.check = rig.new_check(reads)
    rig.require_nothing()
    rig.commit(ROWS_AT_ONCE + 10)
    rig.checkpoint()
    rig.require_nothing()
    before = reads.count
    assert before > ROWS_AT_ONCE
    rig.commit(2)
    rig.require_nothing()
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
    rig.require_nothing()


@pytest.mark.parametrize("behind", ["checkpoints", "streams"])
def test_a_checkpoint_that_is_written_while_a_turn_reads_gives_no_false_alarm(
    rig: Rig, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed behind the last checkpoint, or the first streams, that were seen belongs to the next turn."""
    monkeypatch.setattr("service.selfcheck.added.STREAMS_AT_ONCE", 1)
    other = rig.store.lane("other")
    rig.commit(1, other)
    rig.checkpoint()
    rig.require_nothing()

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
        rig.require_nothing()
        write()
    assert rig.check.state().error is None


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_is_no_finding(rig: Rig, step_s: int) -> None:
    """Records of the new time, which look as if somebody had appended them, wait for the checkpoints to cover them."""
    other = rig.store.lane("other")
    rig.commit(2, other)
    rig.checkpoint()
    rig.require_nothing()
    rig.store.clock.advance(step_s)
    for _ in range(4):
        rig.commit(2)
        rig.commit(2, other)
        rig.require_nothing()
        rig.checkpoint()
        rig.require_nothing()


def test_a_record_that_is_not_covered_two_checkpoints_later_is_a_finding(rig: Rig) -> None:
    """Then it was no step of the clock: the checkpoints leave the record out, as they do what somebody appended."""
    other = rig.store.lane("other")
    rig.commit(2, other)
    rig.checkpoint()
    rig.require_nothing()
    stream_id = rig.commit(1, other)
    with rig.store.attacking() as connection:
        connection.execute("UPDATE audit_streams SET mac = 'forged' WHERE stream_id = ?", (stream_id,))
    rig.store.clock.advance(400)
    for _ in range(2):
        rig.checkpoint()
        rig.require_nothing()
    rig.checkpoint()
    assert rig.findings() == 1
    assert str(rig.check.state().first).startswith(f"record_unanchored at {stream_id}:")
    rig.now_s += INTERVAL_S
    assert rig.findings() == 1


def test_a_rotation_is_no_finding(rig: Rig) -> None:
    """Checkpoints before and after a change of the signing key verify, each with the key of its time."""
    new = Signer(FOREIGN_KEY)
    rig.require_nothing()
    rig.writer = rig.store.checkpoints(rig.lane, Signer(KEY), new)
    assert rig.writer.hold()
    rig.check._keys = rig.writer.registered
    rig.commit()
    rig.writer.rotate(new)
    rig.commit()
    rig.checkpoint()
    rig.require_nothing()
    rig.commit()
    rig.checkpoint()
    rig.require_nothing()


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
    rig.require_nothing()
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
    assert not check._loop._thread.is_alive()
