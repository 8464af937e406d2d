"""A disk that is nearly full stops what begins, before it breaks what is under way."""

from pathlib import Path

import pytest

from service.errors import DiskLowError
from service.store.watermark import REFUSALS_SHARE, DiskWatermark, WatermarkedLedger
from tests.support.ids import Seconds
from tests.support.sqlite_stores import SqliteStore


def test_work_passes_while_there_is_room(store: SqliteStore) -> None:
    """Above the mark the ledger is as if nothing stood before it."""
    ledger = WatermarkedLedger(store.lane(), DiskWatermark(store.path.parent, 1, Seconds()))
    receipt = ledger.submit(lambda transaction: transaction.save(store.fact())).result()
    assert receipt.sequence_number == 2


def test_work_is_refused_below_the_mark_and_nothing_is_written(store: SqliteStore) -> None:
    """Below the mark work is answered with an error that says what to do, and the database stays as it was."""
    ledger = WatermarkedLedger(store.lane(), DiskWatermark(store.path.parent, 2**62, Seconds()))
    with pytest.raises(
        DiskLowError, match=r"iB left, less than the 4294967296.0 GiB that are kept free \(AUDITRACE_MIN_FREE"
    ):
        ledger.submit(lambda transaction: transaction.save(store.fact())).result()
    assert store.rows("SELECT count(*) FROM audit_records") == [(0,)]


def test_the_disk_is_looked_at_again_once_there_may_be_room(tmp_path: Path) -> None:
    """What was seen counts for a second, so that a flood of requests does not ask the file system each time."""
    clock = Seconds()
    folder = tmp_path / "gone"
    folder.mkdir()
    watermark = DiskWatermark(folder, 1, clock)
    assert watermark.problem() is None
    folder.rmdir()
    clock.now = 0.9
    assert watermark.problem() is None
    clock.now = 1.0
    assert "cannot be looked at" in (watermark.problem() or "")


def test_what_may_use_a_part_of_the_kept_space_is_refused_later(store: SqliteStore) -> None:
    """Records of refusals are committed down to a half of the mark, where work is refused already."""
    free = DiskWatermark(store.path.parent, 0, Seconds()).free_bytes()
    lane, low = store.lane(), DiskWatermark(store.path.parent, free * 3 // 2, Seconds())
    with pytest.raises(DiskLowError):
        WatermarkedLedger(lane, low).submit(lambda transaction: transaction.save(store.fact())).result()
    kept = WatermarkedLedger(lane, low, share=REFUSALS_SHARE)
    assert kept.submit(lambda transaction: transaction.save(store.fact())).result().sequence_number == 2
    lower = DiskWatermark(store.path.parent, free * 3, Seconds())
    with pytest.raises(DiskLowError):
        WatermarkedLedger(lane, lower, share=REFUSALS_SHARE).submit(lambda _: None).result()
