"""How much memory the verification takes: the peak at ten times as many records against the peak at as many."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.ledgers import write_archive
from tests.benchmarks.verify import CACHE

GOAL = 1.1
RECORDS = 1_000_000
SMALL_RECORDS = 5_000

_ROOT = Path(__file__).parents[2]


def measure(*, is_small: bool) -> Iterator[str]:
    """Yield what was measured, line by line; a line that begins with MISSED says that the goal was not met."""
    count = SMALL_RECORDS if is_small else RECORDS
    peaks: list[float] = []
    for records in (count, 10 * count):
        write_archive(CACHE / str(records), records, compressed=True)
        ran = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.peak", str(CACHE / str(records))],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        peak = json.loads(ran.stdout)
        peaks.append(peak["first_mib"] + peak["others_mib"])
        yield f"{records} records, compressed: {peak['verdict']} in {peak['seconds']:.0f} s"
        yield f"  peak of the first process {peak['first_mib']:.1f} MiB, of the others {peak['others_mib']:.1f} MiB"
    ratio = peaks[1] / peaks[0]
    yield f"{'MISSED' if ratio > GOAL and not is_small else 'ratio'}: {ratio:.3f}, the goal is at most {GOAL}"
