"""Runs: what does isolation cost? Time of a run of `true` under each isolation, as a ratio to one without."""

import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.execution.outcome import Reason
from service.execution.supervised import SupervisedRun
from tests.support.runs import ISOLATIONS, confinement, run_spec

ROUNDS: Final = 60
SMALL_ROUNDS: Final = 3
MOST_RATIO: Final = 3.0
"""How much longer a run may take in a sandbox."""


def measure(*, is_small: bool) -> Iterator[str]:
    """Yield a line for each isolation, and one that begins with MISSED if a sandbox costs too much."""
    if shutil.which("bwrap") is None:
        yield "MISSED bubblewrap is not installed"
        return
    taken_ms: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="auditrace-isolation-") as folder:
        Path(folder).chmod(0o711)
        for _ in range(SMALL_ROUNDS if is_small else ROUNDS):
            # Other work on the machine falsifies seconds: every isolation has its turn in every round.
            for isolation in ISOLATIONS:
                taken_ms[isolation].append(_run_ms(Path(folder), isolation))
    medians = {isolation: statistics.median(times) for isolation, times in taken_ms.items()}
    for isolation, median in medians.items():
        yield f"{isolation:12} {median:6.1f} ms a run, {median / medians['off']:.2f} times one without isolation"
    if not is_small and medians["bubblewrap"] > MOST_RATIO * medians["off"]:
        yield f"MISSED a run in a sandbox takes more than {MOST_RATIO:g} times as long"


def _run_ms(folder: Path, isolation: str) -> float:
    token = confinement.set(isolation)
    try:
        spec = run_spec(folder, "true")
    finally:
        confinement.reset(token)
    started = time.perf_counter()
    result = SupervisedRun(spec).wait()
    assert result.reason is Reason.SUCCESS, result.detail
    return (time.perf_counter() - started) * 1000
