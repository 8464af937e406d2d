"""The pause before the next attempt grows, is bounded, and differs between jobs."""

import pytest

from service.jobs.backoff import retry_delay_s


@pytest.mark.parametrize(
    ("attempt", "longest_s"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (10**9, 30)]
)
def test_pauses_double_up_to_thirty_seconds(attempt: int, longest_s: float) -> None:
    """The pause is between half of and the full 1 s, 2 s, 4 s ... 30 s, for any number of attempts."""
    assert retry_delay_s(attempt, lambda: 0.0) == longest_s
    assert longest_s / 2 <= retry_delay_s(attempt, lambda: 0.999_999) < longest_s


def test_jobs_that_failed_together_come_back_apart() -> None:
    """Two jobs that draw different random numbers wait for different times."""
    assert retry_delay_s(3, lambda: 0.2) != retry_delay_s(3, lambda: 0.7)
