"""Whatever is killed, whenever: what was acknowledged is committed, and what was committed arrives."""

import random
from pathlib import Path

from tests.fault.kills import kill_at_random


def test_random_kills_lose_nothing_and_alter_nothing(tmp_path: Path) -> None:
    """SIGKILLs of service, relay and collector under load: every receipt holds, every record arrives, copies verify."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    outcome = kill_at_random(tmp_path, seed, kills=3)
    assert set(outcome.kills) == {"service", "relay", "collector"}
    assert set(outcome.kills.values()) == {3}
