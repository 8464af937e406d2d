"""Writes on PostgreSQL: do they cost more the more is stored, and what do lanes bring?

Other work on the machine falsifies seconds. So what a change costs is counted in what does not depend on it (buffers
and bytes of the log, processor time of the server and of the service), and throughput is compared only within one
round, in which every number of lanes has its turn.
"""

import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from service.ports import Transition
from telemetry.audit.record import Target
from tests.support.postgres import PostgresServer, running_server
from tests.support.postgres_stores import PostgresStore
from tests.support.postgres_volume import fill
from tests.support.stores import new_job

LANES: Final = (1, 2, 4, 8)
SIZES: Final = (10_000, 100_000, 1_000_000)
SMALL_SIZES: Final = (1_000, 10_000)
ROUNDS: Final = 7
CHANGES: Final = 600
MOST_GROWTH: Final = 1.3
"""How much more a change may cost in the largest ledger than in the smallest."""

_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_instances = itertools.count(1_000)


class Cost(NamedTuple):
    """What one change costs: buffers of 8 KiB, bytes of the log, microseconds of the server and of the service."""

    buffers: float
    wal_bytes: float
    server_us: float
    service_us: float


class Turn(NamedTuple):
    """What was measured in one turn."""

    rate: float
    cost: Cost


def measure(*, is_small: bool) -> Iterator[str]:
    """Yield a line for each figure, and one that begins with MISSED for each goal that was missed."""
    sizes, rounds = (SMALL_SIZES, 2) if is_small else (SIZES, ROUNDS)
    with running_server(fsync=True, settings={"shared_buffers": "1GB", "max_wal_size": "4GB"}) as server:
        urls = {size: server.create_database() for size in sizes}
        for size, url in urls.items():
            fill(url, size, seed=size)
        turns: defaultdict[tuple[int, int], list[Turn]] = defaultdict(list)
        for _ in range(rounds):
            for size, url in urls.items():
                for lanes in LANES:
                    turns[size, lanes].append(_turn(server, url, lanes))
        yield from _rates(turns, sizes)
        yield from _costs(turns, sizes)


def _rates(turns: dict[tuple[int, int], list[Turn]], sizes: tuple[int, ...]) -> Iterator[str]:
    for size in sizes:
        for lanes in LANES:
            pairs = zip(turns[size, lanes], turns[size, 1], strict=True)
            ratio = statistics.median(turn.rate / one.rate for turn, one in pairs)
            best = max(turn.rate for turn in turns[size, lanes])
            yield (
                f"{size:>9,} stored, {lanes} lanes: {ratio:.2f} times the changes/s of one lane in the same round"
                f" (median), {best:,.0f} changes/s at best"
            )


def _costs(turns: dict[tuple[int, int], list[Turn]], sizes: tuple[int, ...]) -> Iterator[str]:
    costs = {
        size: Cost(
            *(
                statistics.median(getattr(turn.cost, what) for lanes in LANES for turn in turns[size, lanes])
                for what in Cost._fields
            )
        )
        for size in sizes
    }
    for size, cost in costs.items():
        yield (
            f"{size:>9,} stored, a change costs {cost.buffers:.0f} buffers, {cost.wal_bytes:,.0f} bytes of log,"
            f" {cost.server_us:.0f} µs of the server, {cost.service_us:.0f} µs of the service"
        )
    for what in ("buffers", "server_us", "service_us"):
        growth = getattr(costs[sizes[-1]], what) / getattr(costs[sizes[0]], what)
        verdict = "" if growth <= MOST_GROWTH else "MISSED: "
        yield f"{verdict}{what} at {sizes[-1]:,} stored: {growth:.2f} times those at {sizes[0]:,}; goal: {MOST_GROWTH}"


def _turn(server: PostgresServer, url: str, lanes: int) -> Turn:
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(url, autocommit=True) as beside:
        store = PostgresStore.opened(url, Path(folder), next(_instances), lanes=lanes)
        opened = store.lane()
        # What opens streams and plans statements is not what a change costs.
        for future in [opened.submit(_creation(store)) for _ in range(64 * lanes)]:
            future.result()
        works = [_creation(store) for _ in range(CHANGES)]
        before, server_s, service_s = _counters(beside), _processor_s(server), time.process_time()
        started = time.monotonic()
        for future in [opened.submit(work) for work in works]:
            future.result()
        elapsed_s = time.monotonic() - started
        service_us = (time.process_time() - service_s) / CHANGES * 1e6
        server_us = (_processor_s(server) - server_s) / CHANGES * 1e6
        # Sessions report what they touched when they end.
        store.close()
        after = _counters(beside)
        buffers, wal_bytes = ((one - other) / CHANGES for one, other in zip(after, before, strict=True))
        return Turn(CHANGES / elapsed_s, Cost(buffers, wal_bytes, server_us, service_us))


_jobs = itertools.count()


def _creation(store: PostgresStore) -> Callable[[Any], object]:
    job = new_job(f"made-{next(_instances)}-{next(_jobs)}")
    transition = Transition(record=store.record(target=Target("job", job.job_id, 1)), job=job)
    return lambda transaction: transaction.save(transition)


def _counters(session: psycopg.Connection[Any]) -> tuple[int, int]:
    session.execute("SELECT pg_stat_force_next_flush()")
    ((buffers, wal),) = session.execute(
        "SELECT blks_hit + blks_read, pg_current_wal_insert_lsn() - '0/0'::pg_lsn FROM pg_stat_database"
        " WHERE datname = current_database()"
    ).fetchall()
    return int(buffers), int(wal)


def _processor_s(server: PostgresServer) -> float:
    """Return the processor time of all processes of a server that live, and of those that it has reaped."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == server.pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == server.pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / _CLOCK_TICKS
