"""Whoever can write the database, and holds neither secret nor key, gets nothing signed that no lane committed."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest

from service.errors import BrokenLedgerError, SettingsError
from service.ports import Ledger, Receipt
from service.secrets import DeploymentSecret
from telemetry import names
from telemetry.audit.canonical import sha256_hex
from telemetry.audit.chain import Tip
from telemetry.audit.ledger import SealedRecord
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)

Tampering: TypeAlias = Callable[[Store, Any, str], None]
"""Changes the database, its triggers dropped, in the stream with this id, whose records 1 to 6 are committed."""

ANCHORED, LAST = 3, 6
"""The number that the checkpoint names, and that of the tip; both are ordinary records, as is 5."""


def commit(store: Store, lane: Ledger, count: int = 1) -> Receipt:
    """Commit facts, and return the last one's receipt."""
    return [lane.submit(lambda transaction: transaction.save(store.fact())).result() for _ in range(count)][-1]


def named_streams(store: Store) -> set[str]:
    """Return the streams that the last checkpoint names."""
    ((body,),) = store.rows(
        "SELECT body FROM audit_records WHERE event_name = 'audit.checkpoint' ORDER BY position DESC LIMIT 1"
    )
    tips = msgspec.json.decode(body)["attributes"][names.AUDITRACE_CHECKPOINT_TIPS]
    return {tip["stream_id"] for tip in tips}


def _tip(connection: Any, stream_id: str, number: int) -> Tip:
    row = connection.execute(
        "SELECT hash, record_id, observed_ns FROM audit_records WHERE stream_id = ? AND number = ?", (stream_id, number)
    ).fetchone()
    return Tip(stream_id, number, *row)


def _forge(store: Store, behind: Tip) -> SealedRecord:
    """Seal a well-formed record behind a tip, as a lane would but without its secret."""
    sealed: list[SealedRecord] = []

    class Forger:
        tip = behind

        def observe_ns(self) -> int:
            return store.clock()

        def append(self, record: SealedRecord) -> None:
            sealed.append(record)
            self.tip = record.tip

    store.audit_log.emit(store.fact().record, Forger())
    return sealed[0]


def _put(connection: Any, stream_id: str, forged: SealedRecord) -> None:
    """Insert a forged record, or put it in the place of the one that has its number."""
    like = connection.execute(
        "SELECT * FROM audit_records WHERE stream_id = ? AND event_name = 'job.create' LIMIT 1", (stream_id,)
    )
    row = dict(zip([column[0] for column in like.description], like.fetchone(), strict=True))
    tip = forged.tip
    taken = "DELETE FROM audit_records WHERE stream_id = ? AND number = ? RETURNING position"
    position = connection.execute(taken, (stream_id, tip.number)).fetchone()
    if "position" in row:
        row["position"] = position[0] if position else None
    row |= {
        "stream_id": tip.stream_id,
        "record_id": tip.record_id,
        "number": tip.number,
        "hash": tip.hash,
        "observed_ns": tip.observed_ns,
    }
    row |= {"body": forged.body.decode(), "otlp": forged.otlp}
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO audit_records ({', '.join(row)}) VALUES ({marks})", [*row.values()])


def _move_tip(connection: Any, tip: Tip) -> None:
    connection.execute(
        "UPDATE audit_streams SET number = ?, hash = ?, record_id = ? WHERE stream_id = ?",
        (tip.number, tip.hash, tip.record_id, tip.stream_id),
    )


def insert_behind_the_tip(store: Store, connection: Any, stream_id: str) -> None:
    """Insert a record behind the tip, with the right links, and move the tip to it."""
    forged = _forge(store, _tip(connection, stream_id, LAST))
    _put(connection, stream_id, forged)
    _move_tip(connection, forged.tip)


def insert_and_leave_the_tip(store: Store, connection: Any, stream_id: str) -> None:
    """Insert a record where the lane will put its next one."""
    _put(connection, stream_id, _forge(store, _tip(connection, stream_id, LAST)))


def insert_before_the_first(store: Store, connection: Any, stream_id: str) -> None:
    """Insert a record with the number 0."""
    _put(connection, stream_id, _forge(store, Tip(stream_id, -1)))


def insert_in_the_midst(store: Store, connection: Any, stream_id: str) -> None:
    """Insert a record, with all that follow renumbered, linked and hashed anew, and the tip moved."""
    for number in range(ANCHORED + 1, LAST + 2):
        _put(connection, stream_id, _forge(store, _tip(connection, stream_id, number - 1)))
    _move_tip(connection, _tip(connection, stream_id, LAST + 1))


def rewrite_the_tail(store: Store, connection: Any, stream_id: str) -> None:
    """Put other records in the place of the unanchored ones, with the right links and hashes, and move the tip."""
    for number in range(ANCHORED + 1, LAST + 1):
        _put(connection, stream_id, _forge(store, _tip(connection, stream_id, number - 1)))
    _move_tip(connection, _tip(connection, stream_id, LAST))


def rewrite_the_tip(store: Store, connection: Any, stream_id: str) -> None:
    """Put another record in the place of the last one, without moving the tip."""
    _put(connection, stream_id, _forge(store, _tip(connection, stream_id, LAST - 1)))


def edit_a_body(store: Store, connection: Any, stream_id: str) -> None:
    """Edit a body, without its hash."""
    edit = "UPDATE audit_records SET body = replace(body, 'alice', 'mallory') WHERE stream_id = ? AND number = 5"
    connection.execute(edit, (stream_id,))


def edit_a_body_and_its_hash(store: Store, connection: Any, stream_id: str) -> None:
    """Edit a body, and state the hash that it has then."""
    edit_a_body(store, connection, stream_id)
    ((body,),) = connection.execute("SELECT body FROM audit_records WHERE stream_id = ? AND number = 5", (stream_id,))
    connection.execute(
        "UPDATE audit_records SET hash = ? WHERE stream_id = ? AND number = 5", (sha256_hex(body.encode()), stream_id)
    )


def drop_a_record(store: Store, connection: Any, stream_id: str) -> None:
    """Delete one of the unanchored records."""
    connection.execute("DELETE FROM audit_records WHERE stream_id = ? AND number = 5", (stream_id,))


def replace_the_anchored(store: Store, connection: Any, stream_id: str) -> None:
    """Put another record in the place of the one that the checkpoint names."""
    _put(connection, stream_id, _forge(store, _tip(connection, stream_id, ANCHORED - 1)))


def cut_the_anchored(store: Store, connection: Any, stream_id: str) -> None:
    """Cut the stream back behind its anchor, to a tip whose MAC was made for it by its lane."""
    connection.execute("DELETE FROM audit_records WHERE stream_id = ? AND number > 2", (stream_id,))
    tip = _tip(connection, stream_id, 2)
    _move_tip(connection, tip)
    mac = SECRET.tip_mac(stream_id, 2, tip.hash)
    connection.execute("UPDATE audit_streams SET mac = ? WHERE stream_id = ?", (mac, stream_id))


def forge_the_mac(store: Store, connection: Any, stream_id: str) -> None:
    """Move the tip with a MAC under a secret of one's own."""
    insert_behind_the_tip(store, connection, stream_id)
    tip = _tip(connection, stream_id, LAST + 1)
    mac = DeploymentSecret(b"m" * 32).tip_mac(stream_id, tip.number, tip.hash)
    connection.execute("UPDATE audit_streams SET mac = ? WHERE stream_id = ?", (mac, stream_id))


def take_another_streams_mac(store: Store, connection: Any, stream_id: str) -> None:
    """Give the tip the MAC that was made for another stream."""
    mac = SECRET.tip_mac("e7507070-ef32-44b3-846d-9f04952e23ea", LAST, _tip(connection, stream_id, LAST).hash)
    connection.execute("UPDATE audit_streams SET mac = ? WHERE stream_id = ?", (mac, stream_id))


TAMPERINGS: dict[Tampering, str] = {
    insert_behind_the_tip: "the tip 7 was not stored by a lane",
    insert_and_leave_the_tip: "records outside of 1 to 6",
    insert_before_the_first: "records outside of 1 to 6",
    insert_in_the_midst: "the tip 7 was not stored by a lane",
    rewrite_the_tail: "the tip 6 was not stored by a lane",
    rewrite_the_tip: "record 6 is not the tip",
    edit_a_body: "the body of record 5 is not the one",
    edit_a_body_and_its_hash: "record 6 does not follow on record 5",
    drop_a_record: "record 5 is missing",
    replace_the_anchored: "record 3 is not the one that checkpoint 1 names",
    cut_the_anchored: "cut back to 2, behind checkpoint 1",
    forge_the_mac: "the tip 7 was not stored by a lane",
    take_another_streams_mac: "the tip 6 was not stored by a lane",
}
"""What each tampering is refused for."""


def _prepared(store: Store, lane: Ledger) -> str:
    """Commit six records of which a checkpoint of another process names three, and return their stream."""
    stream_id = commit(store, lane, ANCHORED - 1).stream_id
    writer = store.checkpoints(store.lane("earlier"))
    writer.write()
    writer.release()
    commit(store, lane, LAST - ANCHORED)
    return stream_id


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_nothing_is_signed_over_a_stream_that_somebody_else_wrote(store: Store, tamper: Tampering) -> None:
    """The stream is refused by the next checkpoint and named, with the reason; the others are signed over."""
    stream_id = _prepared(store, store.lane("victim"))
    with store.attacking() as connection:
        tamper(store, connection, stream_id)
    lane = store.lane("writer")
    writer = store.checkpoints(lane)
    other = commit(store, lane).stream_id
    written = writer.write()
    assert written is not None
    (refused,) = written.refused
    assert refused.stream_id == stream_id
    assert TAMPERINGS[tamper] in refused.reason
    assert writer.refused() == written.refused == writer.look().refused
    assert stream_id not in named_streams(store)
    assert other in named_streams(store)


@pytest.mark.parametrize(
    ("tamper", "first"),
    # A lane that commits again stores its own MAC, and nothing else was changed by the last one.
    [(tamper, "request") for tamper in TAMPERINGS if tamper is not take_another_streams_mac]
    + [(tamper, "checkpoint") for tamper in TAMPERINGS],
)
def test_a_lane_whose_stream_was_tampered_with_goes_on_in_another(store: Store, tamper: Tampering, first: str) -> None:
    """Also the only process of a deployment refuses its stream; its clients notice nothing."""
    lane = store.lane("only")
    stream_id = _prepared(store, lane)
    writer = store.checkpoints(lane)
    with store.attacking() as connection:
        tamper(store, connection, stream_id)
    if first == "request":
        commit(store, lane)
    for _ in range(2):
        written = writer.write()
        assert written is not None
        assert [one.stream_id for one in written.refused] == [stream_id]
        after = commit(store, lane)
        assert after.stream_id != stream_id
        assert stream_id not in named_streams(store)
    assert named_streams(store) == {after.stream_id}


def test_an_unanchored_tail_that_was_cut_is_noticed_by_its_lane(store: Store) -> None:
    """A tip that is set back to an earlier one has its MAC; but its lane knows better, and disowns it for good."""
    lane = store.lane("only")
    stream_id = commit(store, lane, LAST - 1).stream_id
    with store.attacking() as connection:
        tip = _tip(connection, stream_id, ANCHORED)
        connection.execute("DELETE FROM audit_records WHERE stream_id = ? AND number > ?", (stream_id, ANCHORED))
        _move_tip(connection, tip)
        mac = SECRET.tip_mac(stream_id, ANCHORED, tip.hash)
        connection.execute("UPDATE audit_streams SET mac = ?, closed = 1 WHERE stream_id = ?", (mac, stream_id))
    after = commit(store, lane)
    assert after.stream_id != stream_id
    for _ in range(2):
        writer = store.checkpoints(store.lane("other"))
        written = writer.write()
        assert written is not None
        assert [one.stream_id for one in written.refused] == [stream_id]
        assert named_streams(store).isdisjoint({stream_id})
        writer.release()


def test_a_whole_stream_that_somebody_added_is_refused(store: Store) -> None:
    """A stream that no lane opened has no tip with a MAC, however well-formed it is."""
    lane = store.lane()
    _prepared(store, lane)
    forged = _forge(store, Tip("00000000-0000-4000-8000-00000000f0f0"))
    with store.attacking() as connection:
        columns = "epoch, owner, opened_ns, observed_ns, mac, alive_until_ns"
        connection.execute(
            f"INSERT INTO audit_streams (stream_id, number, hash, record_id, {store.stream_columns}{columns})"
            f" SELECT ?, 1, ?, ?, {store.stream_columns}{columns} FROM audit_streams LIMIT 1",
            (forged.tip.stream_id, forged.tip.hash, forged.tip.record_id),
        )
        stream_id = commit(store, lane).stream_id
        _put(connection, stream_id, forged)
    written = store.checkpoints(lane).write()
    assert written is not None
    assert [one.stream_id for one in written.refused] == [forged.tip.stream_id]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_anchors SET number = 1, hash = (SELECT hash FROM audit_records WHERE number = 1)",
        "DELETE FROM audit_anchors",
        "UPDATE audit_checkpoints SET signature = 'AAAA'",
        "UPDATE audit_checkpoints SET records = records + 1",
        "UPDATE audit_checkpoints SET number = number + 1",
        "DELETE FROM audit_checkpoints",
        "UPDATE audit_checkpoints SET fingerprint = 'sha256:00'",
        "UPDATE signing_keys SET first_checkpoint = first_checkpoint + 1",
        "DELETE FROM signing_keys",
    ],
)
def test_no_checkpoint_follows_on_what_somebody_else_stored(store: Store, statement: str) -> None:
    """What a checkpoint takes over from those before is authenticated; when it does not hold, none is written."""
    lane = store.lane()
    commit(store, lane, 3)
    writer = store.checkpoints(lane)
    writer.write()
    with store.attacking() as connection:
        connection.execute(statement)
    with pytest.raises((BrokenLedgerError, SettingsError)):
        writer.write()
    assert store.rows("SELECT count(*) FROM audit_records WHERE event_name = 'audit.checkpoint'") == [(1,)]


def test_anchors_that_somebody_exchanged_are_refused(store: Store) -> None:
    """Each anchor is authenticated by itself, so that sums which still add up do not hide that two were moved."""
    lanes = [store.lane(f"node-{n}") for n in range(2)]
    streams = [commit(store, lane, 2).stream_id for lane in lanes]
    writer = store.checkpoints(store.lane("writer"))
    writer.write()
    for lane in lanes:
        commit(store, lane, 2)
    with store.attacking() as connection:
        for stream_id, number in zip(streams, (2, 4), strict=True):
            tip = _tip(connection, stream_id, number)
            moved = "UPDATE audit_anchors SET number = ?, hash = ? WHERE stream_id = ?"
            connection.execute(moved, (number, tip.hash, stream_id))
    written = writer.write()
    assert written is not None
    assert [one.reason.split(" was ")[0] for one in written.refused] == ["the anchor 2", "the anchor 4"]


def test_a_key_whose_successor_somebody_deleted_does_not_sign_again(store: Store) -> None:
    """A database that names an old key as the current one contradicts the last checkpoint, and none follows."""
    new = Signer(FOREIGN_KEY)
    writer = store.checkpoints(store.lane(), Signer(KEY), new)
    writer.write()
    writer.rotate(new)
    writer.write()
    with store.attacking() as connection:
        connection.execute("DELETE FROM signing_keys WHERE number = 2")
    with pytest.raises(BrokenLedgerError, match="checkpoint 2 was signed by a key"):
        writer.write()


def test_a_key_that_somebody_else_registered_is_not_given_out(store: Store) -> None:
    """Nobody makes the deployment name a public key as its own by writing it into the database."""
    store.checkpoints(store.lane())
    forger = Signer(FOREIGN_KEY)
    with store.attacking() as connection:
        values: tuple[Any, ...] = (forger.fingerprint, forger.public_pem)
        connection.execute("INSERT INTO signing_keys VALUES (2, ?, ?, 1, 1, 'x', 'x')", values)
    with pytest.raises(BrokenLedgerError, match=forger.fingerprint):
        store.keys_of(SECRET)
    with store.attacking() as connection:
        connection.execute("DELETE FROM signing_keys WHERE number = 2")
        connection.execute("UPDATE signing_keys SET fingerprint = ?, public_key = ?", values)
    with pytest.raises(SettingsError):
        store.keys_of(SECRET)


def test_a_process_with_another_secret_is_told_so(store: Store) -> None:
    """A node that was given another ledger secret is stopped before it writes tips that nobody would sign over."""
    store.checkpoints(store.lane())
    with pytest.raises(SettingsError, match="ledger secret"):
        store.keys_of(DeploymentSecret(b"other" * 8))
