"""Whatever is killed in a cluster, whenever: no acknowledged record is lost, and nothing is executed twice."""

import random
from pathlib import Path

from tests.fault.cluster import kill_cluster


def test_kills_in_a_cluster_lose_nothing_and_run_nothing_twice(tmp_path: Path) -> None:
    """SIGKILLs of eight processes and their PostgreSQL: receipts hold, copies verify, runs are single, all goes on."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    outcome = kill_cluster(tmp_path, seed, kills=20)
    assert sum(outcome.kills.values()) == 20
    assert outcome.judged.runs > 0
