"""What every store promises of checkpoints: they name what was committed, in a way that a stranger can verify."""

from typing import Any

import msgspec
import pytest

from service.errors import SettingsError
from service.jobs.model import Status
from service.ports import Ledger, Receipt, Transition
from telemetry import names
from telemetry.audit.signer import Signer
from telemetry.errors import RecordNotSealedError
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.ledger_maker import FOREIGN_KEY
from tests.support.poll_until import poll_until
from tests.support.stores import new_job

pytestmark = pytest.mark.stores(*BOTH)

TEN_S = range(9_000_000_000, 11_000_000_000)


def _commit(store: Store, lane: Ledger, count: int = 1) -> Receipt:
    receipts = [lane.submit(lambda transaction: transaction.save(store.fact())).result() for _ in range(count)]
    return receipts[-1]


def _stated(store: Store) -> list[dict[str, Any]]:
    """Return the attributes of all checkpoints, by number."""
    rows = store.rows("SELECT body FROM audit_records WHERE event_name = ? ORDER BY position", "audit.checkpoint")
    return [msgspec.json.decode(body)["attributes"] for (body,) in rows]


def test_a_ledger_with_a_checkpoint_verifies_with_the_public_key_alone(store: Store) -> None:
    """A stranger who holds a copy and the public key finds it intact, up to the checkpoint."""
    lane = store.lane()
    _commit(store, lane, 3)
    written = store.checkpoints(lane).write()
    assert written is not None
    assert written.numbers == [1]
    report = store.verify()
    assert (report.verdict, report.signatures, report.findings) == ("intact", "checked", ())
    assert (report.records, report.checkpoints, report.unanchored) == (5, 1, 1)
    assert store.verify(FOREIGN_KEY.public_key()).verdict == "broken"


def test_each_checkpoint_goes_on_where_the_one_before_ended(store: Store) -> None:
    """A checkpoint names what was added since the one before, that one included, and never itself."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    _commit(store, lane, 2)
    writer.write()
    _commit(store, lane, 2)
    writer.write()
    writer.write()
    first, second, third = _stated(store)
    tips = [stated[names.AUDITRACE_CHECKPOINT_TIPS][0] for stated in (first, second, third)]
    assert [(tip["from"], tip["number"]) for tip in tips] == [(1, 3), (4, 6), (7, 7)]
    assert [stated[names.AUDITRACE_CHECKPOINT_RECORDS] for stated in (first, second, third)] == [3, 6, 7]
    assert [stated[names.AUDITRACE_CHECKPOINT_STREAMS] for stated in (first, second, third)] == [1, 1, 1]
    assert names.AUDITRACE_CHECKPOINT_PREV_HASH not in first
    hashes = [row[0] for row in store.rows("SELECT hash FROM audit_checkpoints ORDER BY number")]
    assert [second[names.AUDITRACE_CHECKPOINT_PREV_HASH], third[names.AUDITRACE_CHECKPOINT_PREV_HASH]] == hashes[:2]
    assert store.verify().verdict == "intact"


def test_an_idle_ledger_gets_its_checkpoint_too(store: Store) -> None:
    """A checkpoint is written whether or not something happened: the time of the last one bounds what can be cut."""
    writer = store.checkpoints(store.lane())
    for _ in range(3):
        writer.write()
    assert [stated[names.AUDITRACE_CHECKPOINT_NUMBER] for stated in _stated(store)] == [1, 2, 3]
    assert store.verify().verdict == "intact"


def test_records_of_the_same_transaction_are_left_to_the_next_checkpoint(store: Store) -> None:
    """A checkpoint signs over committed records only, also when its group brings others along."""
    lane = store.lane()
    _commit(store, lane)
    writer = store.checkpoints(lane)

    def both(transaction: Any) -> None:
        transaction.save(store.fact())
        writer._write(transaction, {})
        transaction.save(store.fact())

    lane.submit(both).result()
    ((tip,),) = [stated[names.AUDITRACE_CHECKPOINT_TIPS] for stated in _stated(store)]
    assert tip["number"] == 2
    writer.write()
    assert store.verify().verdict == "intact"


def test_all_streams_are_named_in_as_many_checkpoints_as_it_takes(store: Store) -> None:
    """At most 200 tips stand in one checkpoint; the rest follows at once, and the last one's totals hold for all."""
    lane = store.lane()
    for _ in range(203):
        _commit(store, lane)
        store.clock.advance(-2)
    written = store.checkpoints(lane).write()
    assert written is not None
    assert written.numbers == [1, 2]
    assert [len(stated[names.AUDITRACE_CHECKPOINT_TIPS]) for stated in _stated(store)] == [200, 3]
    assert store.verify().verdict == "intact"


def test_the_last_checkpoint_stands_behind_the_close_of_its_own_stream(store: Store) -> None:
    """A clean shutdown ends with a checkpoint that names every stream as closed, and leaves one record unanchored."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    _commit(store, lane, 2)
    lane.close(writer.write_last)
    events = [row[0] for row in store.rows("SELECT event_name FROM audit_records ORDER BY number")]
    assert events[-2:] == [names.EVENT_AUDIT_STREAM_CLOSE, names.EVENT_AUDIT_CHECKPOINT]
    ((tip,),) = [stated[names.AUDITRACE_CHECKPOINT_TIPS] for stated in _stated(store)]
    assert (tip["number"], tip["closed"]) == (4, True)
    report = store.verify()
    assert (report.verdict, report.unanchored) == ("intact", 1)
    other = store.lane("next")
    store.kill(lane)
    store.checkpoints(other).write()
    assert store.verify().verdict == "intact"


def test_without_the_lease_nothing_is_written(store: Store) -> None:
    """One process writes at a time; when it dies another takes over at once, when it is paused after ten seconds."""
    lanes = [store.lane(f"node-{n}") for n in range(3)]
    first, second, third = [store.checkpoints(lane) for lane in lanes]
    assert first.hold()
    assert not second.hold()
    assert second.write() is None
    store.kill(lanes[0])
    assert second.hold()
    assert not third.hold()
    store.clock.advance(11)
    assert third.write() is not None
    assert store.verify().verdict == "intact"


def test_a_lease_that_was_given_back_is_free(store: Store) -> None:
    """A process that stops lets the next one write without waiting."""
    first, second = [store.checkpoints(store.lane(f"node-{n}")) for n in range(2)]
    assert first.hold()
    first.release()
    assert second.hold()


def test_a_stream_whose_process_died_is_closed_by_the_next_checkpoint(store: Store) -> None:
    """A crash leaves a stream without its closing record: the next checkpoint ends it at its last committed number."""
    dead, lane = store.lane("dead"), store.lane("alive")
    last = _commit(store, dead, 2)
    store.kill(dead)
    written = store.checkpoints(lane).write()
    assert written is not None
    assert written.closed == [last.stream_id]
    (tip,) = _stated(store)[0][names.AUDITRACE_CHECKPOINT_TIPS]
    assert (tip["stream_id"], tip["number"], tip["closed"]) == (last.stream_id, 3, True)
    assert store.verify().verdict == "intact"


def test_a_process_that_was_paused_before_it_writes_keeps_its_own_stream(store: Store) -> None:
    """Whoever writes is alive, however late it comes to it."""
    lane = store.lane()
    stream_id = _commit(store, lane).stream_id
    writer = store.checkpoints(lane)
    store.clock.advance(60)
    written = writer.write()
    assert written is not None
    assert written.closed == []
    assert _commit(store, lane).stream_id == stream_id


def test_a_process_that_was_only_paused_goes_on_in_a_new_stream(store: Store) -> None:
    """A stream whose lease ran out is closed; its process loses nothing and adds nothing behind the close."""
    paused, lane = store.lane("paused"), store.lane("alive")
    writer = store.checkpoints(lane)
    before = _commit(store, paused)
    store.clock.advance(11)
    written = writer.write()
    assert written is not None
    assert written.closed == [before.stream_id]
    after = _commit(store, paused)
    assert (after.stream_id != before.stream_id, after.sequence_number) == (True, 2)
    writer.write()
    report = store.verify()
    assert (report.verdict, report.findings, report.streams) == ("intact", (), 3)


def test_a_stream_that_is_renewed_stays_open(store: Store) -> None:
    """Every commit says that the stream's process is alive, whether or not it adds a record."""
    quiet, lane = store.lane("quiet"), store.lane("alive")
    _commit(store, quiet)
    for _ in range(4):
        store.clock.advance(4)
        quiet.submit(lambda transaction: transaction.job("job-1", None)).result()
    written = store.checkpoints(lane).write()
    assert written is not None
    assert written.closed == []


def test_a_stream_of_an_idle_process_stays_open(store: Store) -> None:
    """A process that has nothing to commit says that it is alive all the same, also after its clock stepped back."""
    idle, lane = store.lane("idle"), store.lane("alive")
    stream_id = _commit(store, idle).stream_id
    for seconds in (60, -7200):
        store.clock.advance(seconds)
        now_ns = store.clock.now_ns
        poll_until(
            lambda at=now_ns: store.rows("SELECT alive_until_ns - ? FROM audit_streams", at)[0][0] in TEN_S, "a renewal"
        )
    written = store.checkpoints(lane).write()
    assert written is not None
    assert stream_id not in written.closed


def test_a_process_without_the_private_key_writes_no_checkpoint(store: Store) -> None:
    """Only who holds the private key of the registered public key writes, and it does not keep others from it."""
    right, wrong = store.lane("right"), store.lane("wrong")
    keeper = store.checkpoints(right)
    stranger = store.checkpoints(wrong, Signer(FOREIGN_KEY))
    with pytest.raises(SettingsError):
        stranger.hold()
    with pytest.raises(SettingsError):
        stranger.write()
    assert _stated(store) == []
    assert keeper.write() is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_checkpoints SET hash = 'x'",
        "DELETE FROM audit_checkpoints",
        "INSERT INTO audit_checkpoints SELECT * FROM audit_checkpoints WHERE number = 1",
        "INSERT INTO audit_checkpoints SELECT 6, 'x', hash, '', fingerprint, 1, 1, 1, '' FROM audit_checkpoints",
        "INSERT INTO audit_checkpoints SELECT 2, 'x', hash, '', fingerprint, 1, 1, 1, '' FROM audit_checkpoints",
        "DELETE FROM audit_anchors",
        "UPDATE audit_anchors SET number = 1",
        "DELETE FROM signing_keys",
        "UPDATE signing_keys SET public_key = 'x'",
        "INSERT INTO signing_keys SELECT 2, fingerprint, 'x', 1, 1, 'x', '' FROM signing_keys",
    ],
)
def test_checkpoints_anchors_and_keys_are_append_only(store: Store, statement: str) -> None:
    """Triggers refuse to change or remove what was signed and the keys that signed it, whoever asks."""
    lane = store.lane()
    _commit(store, lane)
    store.checkpoints(lane).write()
    with pytest.raises(store.refusal):
        store.execute(statement)


@pytest.mark.stores(SQLITE)
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO audit_checkpoints SELECT * FROM audit_checkpoints WHERE number = 1",
        "INSERT OR REPLACE INTO signing_keys SELECT * FROM signing_keys",
        "INSERT OR REPLACE INTO signing_keys SELECT 2, fingerprint, 'x', 1, 1, 'x', '' FROM signing_keys",
    ],
)
def test_checkpoints_and_keys_cannot_be_replaced(store: Store, statement: str) -> None:
    """SQLite's way to delete a row without firing a trigger is refused too."""
    lane = store.lane()
    _commit(store, lane)
    store.checkpoints(lane).write()
    with pytest.raises(store.refusal):
        store.execute(statement)


def test_a_signed_event_cannot_be_saved_without_a_key(store: Store) -> None:
    """No path through the store commits a checkpoint record that is not signed."""
    unsigned = Transition(record=store.system_record(names.EVENT_AUDIT_CHECKPOINT))
    with pytest.raises(RecordNotSealedError):
        store.lane().submit(lambda transaction: transaction.save(unsigned)).result()
    assert _stated(store) == []


def test_jobs_and_checkpoints_share_a_stream(store: Store) -> None:
    """Changes of jobs between checkpoints are anchored like any other record."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    lane.submit(lambda transaction: transaction.save(store.transition(new_job()))).result()
    writer.write()
    cancelled = msgspec.structs.replace(new_job(), version=2, status=Status.CANCELLED)
    lane.submit(lambda transaction: transaction.save(store.transition(cancelled))).result()
    lane.close(writer.write_last)
    assert store.verify().verdict == "intact"
