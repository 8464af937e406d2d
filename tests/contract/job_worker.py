"""A worker as a process of its own, for tests that kill or stop it: python -m tests.contract.job_worker FOLDER ..."""

import sys
from pathlib import Path

from service.store.urls import is_postgres
from tests.support.jobs import Jobs
from tests.support.postgres_stores import PostgresStore


def main(folder: str, database: str, instance: str, lease_s: str, renew_s: str) -> None:
    """Work on a ledger, whose templates are in `folder`, until standard input ends, then hand back what runs."""
    number, path = int(instance), Path(folder)
    store = PostgresStore.opened(database, path, number, lanes=1) if is_postgres(database) else None
    jobs = Jobs(path, instance=number, store=store)
    jobs.worker(renew_s=float(renew_s), operations=jobs.operations(lease_s=float(lease_s)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    jobs.close()
    if store is not None:
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
