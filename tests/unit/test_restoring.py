"""The number of the first checkpoint after a restore: nobody has used it, and nobody will."""

from hypothesis import given
from hypothesis import strategies as st

from service.store.anchors import StoredCheckpoint
from service.store.restoring import LEFT_OUT, first_after_restore

SECOND_NS = 1_000_000_000
START_NS = 1_767_323_045 * SECOND_NS


def checkpoint(number: int, observed_ns: int) -> StoredCheckpoint:
    """Return a stored checkpoint."""
    return StoredCheckpoint(number, "id", "hash", "signature", "fingerprint", 1, 1, observed_ns, "mac")


@given(st.booleans(), st.integers(1, 10**6), st.lists(st.integers(1, 10**8), min_size=1, max_size=4))
def test_restores_of_one_backup_use_no_number_twice(has_checkpoint: bool, number: int, waits_s: list[int]) -> None:
    """Each goes on behind all that the one before can have used: its first number, and one a second since then."""
    last = checkpoint(number, START_NS) if has_checkpoint else None
    now_ns, used = START_NS, number if has_checkpoint else 0
    for wait_s in waits_s:
        now_ns += wait_s * SECOND_NS
        first = first_after_restore(last, now_ns)
        assert first > used + wait_s
        used = first


def test_a_clock_that_was_set_back_leaves_out_as_many_as_ever() -> None:
    """However the clock stands, a million numbers are left out."""
    assert first_after_restore(checkpoint(7, START_NS), 0) == 7 + LEFT_OUT + 1
