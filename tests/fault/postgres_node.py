"""One process of a deployment on PostgreSQL, to be killed: it works at its role and says what was acknowledged.

Run as `python -m tests.fault.postgres_node ROLE URL FOLDER INSTANCE`. Each line on standard output is a statement
about what is committed: `ack RECORD_ID STREAM_ID NUMBER HASH`, and of workers `claim JOB_ID RUN` and `end JOB_ID RUN`.
"""

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from opentelemetry.metrics import NoOpMeterProvider

from service.checkpointer import Checkpointer
from service.errors import RefusedError, TryLaterError
from service.operations.runs import Claimed, Ended
from service.ports import Receipt
from service.relay.relay import Relay, RelaySettings
from service.store.postgres.outbox import PostgresOutbox
from telemetry.delivery.archive import ArchiveSink
from telemetry.instruments import Instruments
from tests.support.jobs import Jobs
from tests.support.postgres_stores import PostgresStore

T = TypeVar("T")

LEASE_S: Final = 2.0
ENDED: Final = Ended(error_type=None, reason=None, exit_code=0, duration_ms=1, is_retryable=True)


def main(role: str, url: str, folder: Path, instance: int) -> None:
    """Work until killed, or until standard input ends."""
    if role == "relay":
        _relay(url, folder, instance)
        return
    store = PostgresStore.opened(url, folder, instance)
    jobs = Jobs(folder, store=store)
    writer = _until_told(lambda: store.checkpoints(jobs.lane))
    assert writer is not None
    checkpointer = Checkpointer(writer, 0.5, store.clock, time.monotonic, renew_s=0.5)
    checkpointer.start()
    work = _serve(jobs, instance) if role == "serve" else _claim(jobs)
    threads = [threading.Thread(target=_patiently, args=(work,), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    _STOPPING.set()
    for thread in threads:
        thread.join()
    checkpointer.stop()
    jobs.lane.close(writer.write_last)
    store.close()


_STOPPING = threading.Event()
_SAYING = threading.Lock()


def _say(*words: object) -> None:
    # In one write, which a kill cannot cut in two: a line is a statement, half a line is none.
    with _SAYING:
        os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


def _acknowledge(receipt: Receipt) -> None:
    _say("ack", receipt.record_id, receipt.stream_id, receipt.sequence_number, receipt.record_hash)


def _patiently(work: Callable[[], bool]) -> None:
    """Work on through outages, as clients and workers do that were told to try later."""
    while not _STOPPING.is_set():
        try:
            is_busy = work()
        except TryLaterError as error:
            _STOPPING.wait(min(0.2, error.retry_after_s))
            continue
        except RefusedError:
            continue
        if not is_busy:
            _STOPPING.wait(0.05)


def _serve(jobs: Jobs, instance: int) -> Callable[[], bool]:
    numbers: Iterator[int] = itertools.count()

    def work() -> bool:
        client = jobs.client("anna")
        key = f"{instance}-{next(numbers)}"
        made = _until_told(lambda: client.create("shell", {"script": "true"}, key=key))
        if made is not None:
            _acknowledge(made.receipt)
            client.draft(made.value.job_id)
            _acknowledge(client.run(made.value.job_id).receipt)
        return True

    return work


def _until_told(call: Callable[[], T]) -> T | None:
    """Repeat a call that may be repeated until it is answered; None when there is no more time for it."""
    while not _STOPPING.is_set():
        try:
            return call()
        except TryLaterError:
            _STOPPING.wait(0.1)
    return None


def _claim(jobs: Jobs) -> Callable[[], bool]:
    operations = jobs.operations(lease_s=LEASE_S)

    def work() -> bool:
        operations.reclaim()
        claimed = operations.claim()
        if claimed is None:
            return False
        _say("claim", claimed.job.job_id, claimed.run.number)
        if random.random() < 0.1:
            # A worker that was held up for longer than its lease.
            _STOPPING.wait(LEASE_S + 0.5)
        _end(claimed)
        return True

    def _end(claimed: Claimed) -> None:
        if _until_told(lambda: operations.finish(claimed, ENDED)) is not None:
            _say("end", claimed.job.job_id, claimed.run.number)

    return work


def _relay(url: str, folder: Path, instance: int) -> None:
    instruments = Instruments(NoOpMeterProvider().get_meter("test"))
    sink = ArchiveSink(folder / "archive" / f"relay-{instance}.jsonl", time.time_ns)  # noqa: TID251 - names of files
    clock = time.time_ns  # noqa: TID251 - a process of its own
    outbox = PostgresOutbox(url, f"relay-{instance}", clock)
    relay = Relay(outbox, sink, RelaySettings(poll_s=0.1), instruments, clock, time.monotonic, random.random)
    relay.start()
    sys.stdin.read()
    relay.stop(30.0)
    relay.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
