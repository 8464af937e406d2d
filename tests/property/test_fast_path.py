"""The fast path of the verification agrees with the explaining one, whatever was done to a record (docs/adr/0030)."""

from pathlib import Path

import pytest

from telemetry.audit.verify.record import intake
from tests.property.differential import judge
from tests.support.depth import IS_LONG
from tests.support.fast_path_breaks import WEAKENINGS, weakened

SEED = 1
RECORDS = 20_000
LONG_RECORDS = 1_000_000


def test_what_the_fast_path_takes_the_explaining_path_takes_too() -> None:
    """Of tampered records the fast path takes only those with which nothing is wrong, and keeps the same of them."""
    judged = judge(SEED, LONG_RECORDS if IS_LONG else RECORDS)

    # It is no proof if nothing is taken, or if nothing was wrong.
    assert min(judged.accepted.total(), judged.declined.total()) > RECORDS // 10


@pytest.mark.parametrize("name", WEAKENINGS)
def test_a_check_that_is_missing_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one of its checks the fast path takes a record of the same run that is not as it should be."""
    monkeypatch.setattr(intake, "prove", weakened(WEAKENINGS[name], tmp_path).prove)

    with pytest.raises(AssertionError, match=f"of seed {SEED}"):
        judge(SEED, RECORDS)
