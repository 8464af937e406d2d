"""A database that is set back under a process that saw more: it signs nothing any more, and says why."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from service.errors import BrokenLedgerError, LedgerUnavailableError
from service.ports import Receipt
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, SQLITE, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore

pytestmark = pytest.mark.stores(*BOTH)

_TABLES: Final = (
    *("audit_streams", "audit_envelopes", "audit_records", "audit_record_keys", "delivery_cursors", "leases"),
    *("signing_keys", "audit_checkpoints", "audit_anchors", "refused_streams"),
)


def back_up(store: Store, folder: Path) -> Callable[[], None]:
    """Back a ledger up, and return what sets it back to that; the clock goes on."""
    return _backed_up_rows(store) if isinstance(store, PostgresStore) else _backed_up_file(store.path, folder)


def _backed_up_file(path: Path, folder: Path) -> Callable[[], None]:
    backup = folder / "backup.db"
    _copy(path, backup)
    return lambda: _copy(backup, path)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)


def _backed_up_rows(store: PostgresStore) -> Callable[[], None]:
    for table in _TABLES:
        store.execute(f"CREATE TABLE backup_{table} AS TABLE {table}")

    def restore() -> None:
        with store.attacking() as session:
            for table in _TABLES:
                session.execute(f"DELETE FROM {table}")
                session.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM backup_{table}")

    return restore


def _fact(store: Store, lane: Any) -> Receipt:
    receipt: Receipt = lane.submit(lambda transaction: transaction.save(store.fact())).result()
    return receipt


def _numbers(store: Store) -> list[int]:
    return [row[0] for row in store.rows("SELECT number FROM audit_checkpoints ORDER BY number")]


def _signed(store: Store) -> int:
    signed = "SELECT count(*) FROM audit_records WHERE event_name IN ('audit.checkpoint', 'audit.key.rotate')"
    return int(store.rows(signed)[0][0])


WRITES: dict[str, Callable[[Any], object]] = {
    "a checkpoint": lambda writer: writer.write(),
    "a look at the last one": lambda writer: writer.last(),
    "a rotation": lambda writer: writer.rotate(Signer(FOREIGN_KEY)),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_process_whose_checkpoint_is_gone_signs_nothing(store: Store, tmp_path: Path, write: str) -> None:
    """An older state of the database is coherent in itself; a process that saw a later one does not go on with it."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    writer.write()
    set_back = back_up(store, tmp_path)
    # This one is known from its own commit alone.
    writer.write()
    set_back()
    for _ in range(2):
        with pytest.raises(BrokenLedgerError, match="checkpoint 2 was there, and is gone: the database was set back"):
            WRITES[write](writer)
    assert _signed(store) == 1


def test_a_clean_stop_signs_nothing_over_a_database_that_was_set_back(store: Store, tmp_path: Path) -> None:
    """A stop is what an operator does first who was told of it; the last checkpoint is left out."""
    lane: Any = store.lane()
    writer = store.checkpoints(lane)
    writer.write()
    set_back = back_up(store, tmp_path)
    writer.write()
    set_back()
    _fact(store, lane)
    lane.close(writer.write_last)
    assert _numbers(store) == [1]


def test_a_checkpoint_that_took_the_number_of_another_is_noticed(store: Store, tmp_path: Path) -> None:
    """A process that knows nothing of it gave the number out again: who saw the first one tells them apart."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    writer.write()
    writer.release()
    set_back = back_up(store, tmp_path)
    assert writer.hold()
    writer.write()
    set_back()
    ignorant: Any = store.lane("ignorant")
    _fact(store, ignorant)
    other = store.checkpoints(ignorant)
    other.write()
    other.release()
    assert _numbers(store) == [1, 2]
    with pytest.raises(BrokenLedgerError, match="checkpoint 2 was there, and is gone"):
        writer.write()


def test_a_database_that_others_go_on_with_raises_no_alarm(store: Store) -> None:
    """Checkpoints of other processes, rotations and restarts are no set-back."""
    lanes: list[Any] = [store.lane(f"node-{n}") for n in range(2)]
    new = Signer(FOREIGN_KEY)
    writers = [store.checkpoints(lane, Signer(KEY), new) for lane in lanes]
    for turn in range(4):
        writer = writers[turn % 2]
        _fact(store, lanes[turn % 2])
        assert writer.write() is not None
        if turn == 1:
            writer.rotate(new)
        writer.release()
        assert [writer.last() for writer in writers] == [writers[0].last()] * 2
    lanes[0].close(writers[0].write_last)
    assert _numbers(store) == [1, 2, 3, 4, 5]


def test_a_stream_that_nobody_answers_for_is_closed_also_when_it_is_not_signed_over(store: Store) -> None:
    """Its process, should it only have been paused, finds itself fenced; no checkpoint names it."""
    orphan = store.lane("orphan")
    stream_id = _fact(store, orphan).stream_id
    store.kill(orphan)
    with store.attacking() as attacker:
        attacker.execute("UPDATE audit_streams SET mac = 'x'")
    written = store.checkpoints(store.lane("writer")).write()
    assert written is not None
    assert written.closed == [stream_id]
    assert [one.stream_id for one in written.refused] == [stream_id]
    closed = store.rows("SELECT closed FROM audit_streams WHERE stream_id = ?", stream_id)
    assert closed == [(1,)]
    assert store.rows("SELECT count(*) FROM audit_anchors WHERE stream_id = ?", stream_id) == [(0,)]
    assert _fact(store, orphan).stream_id != stream_id


@pytest.mark.stores(SQLITE)
def test_a_record_whose_connection_was_lost_is_missed(store: SqliteStore, tmp_path: Path) -> None:
    """Though no checkpoint is gone: a stream that others hold more of would be signed as ended before that."""
    lane = store.lane()
    writer = store.checkpoints(lane)
    writer.write()
    set_back = back_up(store, tmp_path)
    lost = _fact(store, lane)

    def move_away(transaction: Any) -> None:
        transaction.save(store.fact())
        store.path.rename(tmp_path / "away")

    with pytest.raises(LedgerUnavailableError):
        lane.submit(move_away).result()
    (tmp_path / "away").rename(store.path)
    set_back()
    for _ in range(2):
        with pytest.raises(BrokenLedgerError, match=f"record {lost.sequence_number} of stream .* and is gone"):
            writer.write()
    lane.close(writer.write_last)
    assert _numbers(store) == [1]
