"""Token buckets: nobody gets more than the rate and one bucket, whatever is forgotten, and memory is bounded."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from service.operations.rates import BURST_S, Buckets, Rate
from tests.support.depth import examples
from tests.support.ids import Seconds

RATE = Rate(2, 1)
HELD = RATE.amount * BURST_S


def _buckets(most: int = 100) -> tuple[Buckets[str], Seconds]:
    clock = Seconds()
    return Buckets(RATE, clock, most=most), clock


def test_a_bucket_holds_ten_seconds_worth() -> None:
    """So many pass at once; the next one is told when it will pass, and passes then, not before."""
    buckets, clock = _buckets()
    assert [buckets.take("anna") for _ in range(HELD)] == [0.0] * HELD
    assert buckets.take("anna") == 0.5
    clock.now += 0.4
    assert 0 < buckets.take("anna") < 0.11
    clock.now += 0.2
    assert buckets.take("anna") == 0
    assert buckets.take("anna") > 0
    assert buckets.take("ben") == 0


def test_a_rate_below_one_in_ten_seconds_lets_one_pass() -> None:
    """A bucket holds at least one."""
    clock = Seconds()
    buckets = Buckets[str](Rate(1, 60), clock)
    assert buckets.take("anna") == 0
    assert buckets.take("anna") == 60


def test_what_is_spent_is_owed() -> None:
    """Amounts that are known afterwards are paid off later; what is given back is there again."""
    buckets, clock = _buckets()
    buckets.spend("anna", HELD + 10)
    assert buckets.wait_s("anna", 0) == 5
    clock.now += 5
    assert buckets.wait_s("anna", 0) == 0
    assert buckets.wait_s("anna") == 0.5
    buckets.spend("anna", -1)
    assert buckets.wait_s("anna") == 0


def test_a_full_bucket_takes_no_memory() -> None:
    """What is given back, or has filled up again, makes room."""
    buckets, clock = _buckets(most=3)
    buckets.take("given back")
    buckets.spend("given back", -1)
    assert len(buckets) == 0
    for name in ("anna", "ben", "cora"):
        buckets.take(name)
    clock.now += 1
    buckets.take("dora")
    assert len(buckets) == 1


def test_who_finds_no_place_shares_one() -> None:
    """When memory is full, others share a bucket; those that have one keep it, and nobody gets a new one by waiting."""
    buckets, _ = _buckets(most=2)
    buckets.spend("anna", HELD)
    buckets.spend("ben", HELD)
    shared = [buckets.take(f"user-{number}") for number in range(HELD + 1)]
    assert shared[:-1] == [0.0] * HELD
    assert shared[-1] > 0
    assert buckets.take("anna") > 0
    assert len(buckets) == 3


def test_without_a_rate_nothing_is_too_much() -> None:
    """No limit costs no memory."""
    buckets = Buckets[str](None, Seconds())
    assert {buckets.take("anna") for _ in range(1000)} == {0.0}
    buckets.spend("anna", 10**12)
    assert buckets.wait_s("anna", 10**12) == 0
    assert len(buckets) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 3)), max_size=200), st.integers(1, 6))
@settings(max_examples=examples(200))
def test_nobody_gets_more_than_the_rate(asked: Sequence[tuple[str, float]], most: int) -> None:
    """In any time, however little memory there is, a key takes at most a bucket and what the rate brings in."""
    buckets, clock = _buckets(most)
    taken: Counter[str] = Counter()
    for name, pause_s in asked:
        clock.now += pause_s
        if buckets.take(name) == 0:
            taken[name] += 1
        # One bucket more: a key may have had its own, and then its part of the shared one.
        assert taken[name] <= 2 * (HELD + clock.now * RATE.amount)
        assert len(buckets) <= most + 1
