"""Measures what docs/scale.md states: `python -m tests.benchmarks.postgres_scale [--records 1000000]`.

A server of its own with fsync on; load and server share this machine. Times are of one run; buffers are exact.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.jobs.model import TenantId
from service.ports import RecordFilter, Transition
from service.store.postgres.connection import connect
from telemetry.audit.record import Target
from tests.support.postgres import running_server
from tests.support.postgres_plans import buffers, explained
from tests.support.postgres_stores import PostgresStore
from tests.support.postgres_volume import fill
from tests.support.stores import new_job

PAGE = 50
BURST = 2_000
ONE_BY_ONE = 300
FILTERS = (
    "actor_id",
    "action",
    "event_name",
    "outcome",
    "result",
    "target_type",
    "target_id",
    "trace_id",
    "span_id",
    "job_id",
    "stream_id",
    "request_id",
)
TENANT = TenantId("tenant-0")


def main(arguments: Sequence[str]) -> int:
    """Measure at each size up to the one that was asked for, and print a line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    most = parser.parse_args(arguments).records
    with running_server(fsync=True, settings={"shared_buffers": "512MB", "max_wal_size": "4GB"}) as server:
        url = server.create_database()
        stored = 0
        for size in (size for size in (10_000, 100_000, 1_000_000) if size <= most):
            started = time.monotonic()
            fill(url, size - stored, seed=size)
            _say(size, "filled, records/s", round((size - stored) / (time.monotonic() - started)))
            stored = size
            _writes(url, size)
            _pages(url, size)
            _growth(url, size)
    return 0


_instances = itertools.count(100)


def _writes(url: str, size: int) -> None:
    for lanes in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            store = PostgresStore.opened(url, Path(folder), next(_instances), lanes=lanes)
            opened = store.lane()
            opened.submit(_creation(store)).result()
            started = time.monotonic()
            futures = [opened.submit(_creation(store)) for _ in range(BURST)]
            for future in futures:
                future.result()
            _say(size, f"{lanes} lanes, changes/s in groups", round(BURST / (time.monotonic() - started)))
            times: list[float] = []
            for _ in range(ONE_BY_ONE):
                started = time.monotonic()
                opened.submit(_creation(store)).result()
                times.append(time.monotonic() - started)
            _say(size, f"{lanes} lanes, ms alone, median", round(1000 * statistics.median(times), 2))
            store.close()


_jobs = itertools.count()


def _creation(store: PostgresStore) -> Callable[[Any], object]:
    job = new_job(f"made-{next(_instances)}-{next(_jobs)}")
    transition = Transition(record=store.record(target=Target("job", job.job_id, 1)), job=job)
    return lambda transaction: transaction.save(transition)


def _pages(url: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = PostgresStore.opened(url, Path(folder), next(_instances))
        like = store.reads.records(RecordFilter(tenant_id=TENANT, outcome=("failure",)), None, PAGE).rows[-1]
        ((example,),) = store.rows("SELECT to_json(r) FROM audit_records r WHERE record_id = ?", like.record_id)
        for name in FILTERS:
            where = RecordFilter(**{"tenant_id": TENANT, name: (example[name],)})
            times: list[float] = []
            for _ in range(20):
                started = time.monotonic()
                rows = store.reads.records(where, None, PAGE).rows
                times.append(time.monotonic() - started)
            _say(size, f"a page of {len(rows)} by {name}, ms, median", round(1000 * statistics.median(times), 2))
            with connect(url) as session:
                plan = explained(session, store.reads, "records", where, None, PAGE)
            _say(size, f"a page of {len(rows)} by {name}, buffers", buffers(plan))
        store.close()


def _growth(url: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = PostgresStore.opened(url, Path(folder), next(_instances))
        ((records, table, keys, count),) = store.rows(
            "SELECT (SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE 'audit_records_2%'"
            " AND relkind = 'r'), (SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relname LIKE 'audit_records_2%'"
            " AND relkind = 'r'), pg_total_relation_size('audit_record_keys'), (SELECT count(*) FROM audit_record_keys)"
        )
        _say(size, "bytes a record: row", round(table / count))
        _say(size, "bytes a record: indices", round((records - table) / count))
        _say(size, "bytes a record: key", round(keys / count))
        store.close()


def _say(size: int, what: str, value: object) -> None:
    sys.stdout.write(f"{size:>9,}  {what}: {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
