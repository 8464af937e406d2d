"""Verifies one copy and prints, as JSON, the peak of memory of each process: run as a process of its own."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

from telemetry.audit.verify import verify_copy
from tests.support.ledger_maker import KEY


class Peaks:
    """The most memory that the processes ever had, by what the kernel says of each while it lives."""

    def __init__(self) -> None:
        self._mib: dict[int, float] = {}

    def look(self, *_: int) -> None:
        """Look at this process and those that it started."""
        for pid in (os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())):
            # Not from `getrusage`: that counts what the parent had when it started the process.
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
            self._mib[pid] = int(peak) / 1024

    def of_first(self) -> float:
        """Return the peak of this process."""
        return self._mib[os.getpid()]

    def of_others(self) -> float:
        """Return the sum of the peaks of the others."""
        return sum(self._mib.values()) - self.of_first()


def main() -> None:
    """Verify the copy in the folder that is named."""
    start, peaks = time.perf_counter(), Peaks()
    report = verify_copy([Path(sys.argv[1])], public_keys=[KEY.public_key()], progress=peaks.look)
    peaks.look()
    answer = {
        "verdict": report.verdict,
        "records": report.records,
        "seconds": time.perf_counter() - start,
        "first_mib": peaks.of_first(),
        "others_mib": peaks.of_others(),
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
