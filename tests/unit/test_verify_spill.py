"""Rows that memory does not hold: whatever their number and order, they come back sorted, and all of them."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.audit.verify import spill
from telemetry.audit.verify.spill import Groups, Sorter, rows_of
from tests.support.depth import examples

QUICK = settings(derandomize=True, deadline=None, max_examples=examples(60))


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few rows be more than memory holds."""
    monkeypatch.setattr(spill, "_MERGE_BYTES", 64)
    monkeypatch.setattr(spill, "_MIN_BLOCK_BYTES", 32)
    monkeypatch.setattr(spill, "_MAX_MERGED", 3)


@pytest.mark.parametrize("row_bytes", [8, None])
@pytest.mark.parametrize("count", [0, 1, 10, 500])
def test_rows_come_back_sorted(tmp_path: Path, row_bytes: int | None, count: int) -> None:
    """Rows of one size or of any come back in order, from many runs in several files, the same as often as it was."""
    sorters = [Sorter(tmp_path / str(at), row_bytes, run_bytes=100) for at in range(3)]
    rows = [os.urandom(8 if row_bytes else at % 40) for at in range(count)]
    rows += rows[: count // 3]
    for at, row in enumerate(rows):
        sorters[at % 3].add(row)

    runs = [run for sorter in sorters for run in sorter.runs()]

    assert list(rows_of(runs, tmp_path / "scratch", row_bytes)) == sorted(rows)
    assert count < 500 or len(runs) > 9


def test_a_process_can_read_what_another_one_spilled(tmp_path: Path) -> None:
    """After a spill nothing is held in memory, and what comes later is sorted for itself."""
    sorter = Sorter(tmp_path / "rows", 2)
    sorter.extend([b"bb", b"aa"])
    sorter.spill()
    first = sorter.runs()
    sorter.extend([b"cc", b"ab"])
    sorter.spill()

    assert all(not run.held and Path(run.path).exists() for run in sorter.runs())
    assert list(rows_of(first, tmp_path / "scratch", 2)) == [b"aa", b"bb"]
    assert list(rows_of(sorter.runs(), tmp_path / "scratch", 2)) == [b"aa", b"ab", b"bb", b"cc"]


def test_few_rows_leave_the_disk_alone(tmp_path: Path) -> None:
    """Nothing is written for what memory holds."""
    sorter = Sorter(tmp_path / "rows")
    sorter.extend([b"b", b"a"])

    assert list(rows_of(sorter.runs(), tmp_path / "scratch")) == [b"a", b"b"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_lost_its_end_is_an_error(tmp_path: Path) -> None:
    """What was written and is not there any more is never taken for the end."""
    sorter = Sorter(tmp_path / "rows", 4)
    sorter.extend([b"aaaa", b"bbbb"])
    sorter.spill()
    (tmp_path / "rows").write_bytes(b"aaaa")

    with pytest.raises(OSError, match="shorter"):
        list(rows_of(sorter.runs(), tmp_path / "scratch", 4))


@QUICK
@given(st.lists(st.sampled_from("abc"), max_size=20), st.sets(st.sampled_from("abcd")), st.booleans())
def test_groups_come_one_by_one(items: list[str], wanted: set[str], is_read: bool) -> None:
    """Each group is handed out once, whether or not it is read to its end, and a key without one gets nothing."""
    groups = Groups(sorted(items), str.encode)
    seen: list[str] = []
    for key in sorted({*items, *wanted}):
        assert groups.key is None or groups.key >= key.encode()
        with groups.of(key.encode()) as group:
            seen.extend(group if is_read else list(group)[:0])

    assert groups.key is None
    assert seen == (sorted(items) if is_read else [])
