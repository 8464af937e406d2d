"""A worker as a process of its own, for tests that kill or stop it: python -m tests.support.job_worker FOLDER ..."""

import sys
from pathlib import Path

from tests.support.jobs import Jobs


def main(folder: str, instance: str, lease_s: str, renew_s: str) -> None:
    """Work on the ledger in `folder` until standard input ends, then hand back what runs."""
    jobs = Jobs(Path(folder), instance=int(instance))
    jobs.worker(renew_s=float(renew_s), operations=jobs.operations(lease_s=float(lease_s)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    jobs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
