"""A process that forks children which do one thing to a ledger, so that a debugger can let each fail at another call.

Run as `python -m tests.fault.fault_child`. Everything is imported before the first fork, so a child costs what it
does and no start-up. One line of JSON on standard input starts a child; it answers with the thread to be watched,
does its work on `go`, and says what it would tell its client; the last line is how it ended.
"""

import ctypes
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from opentelemetry.metrics import NoOpMeter

from service.bootstrap.configuration import ConfiguredPart
from service.bootstrap.configuring import configure
from service.bootstrap.node import Node
from service.config import read_settings
from service.errors import AuditraceError, TryLaterError
from service.relay import Relay, RelaySettings
from telemetry.delivery.archive import ArchiveSink
from telemetry.errors import TelemetryError
from telemetry.instruments import Instruments
from tests.support.ids import record_ids
from tests.support.jobs import Jobs
from tests.support.sqlite_stores import SqliteStore

CONFIRMER: Final = "ben"
KEY: Final = "one-confirmation"
ARCHIVE: Final = "audit.jsonl"

CONFIGURED: Final = frozenset({ConfiguredPart.LEDGER, ConfiguredPart.API, ConfiguredPart.RELAY})

_PR_SET_PTRACER: Final = 0x59616D61
_ANYBODY: Final = ctypes.c_ulong(-1)

Do = Callable[[], None]
"""Does the work and says what comes of it."""


def say(**what: Any) -> None:
    """Write one line in one call, so that it is said as a whole or not at all."""
    os.write(1, (json.dumps(what) + "\n").encode())


def heard() -> Iterator[str]:
    """Yield the lines of standard input; nothing is read ahead of a line that a child is to read."""
    while True:
        line = b"".join(iter(lambda: os.read(0, 1).replace(b"\n", b""), b""))
        if not line:
            return
        yield line.decode()


def jobs_in(folder: Path, instance: int) -> Jobs:
    """Open the ledger in this folder, or in a copy of it, as one of the processes that work on it one after another."""
    jobs = Jobs(folder, instance=instance)
    # Ids go by the folder's name, and in a copy they would sometimes be those of the original.
    jobs.store.ids = record_ids(instance)
    return jobs


def request(folder: Path, job_id: str, plan_sha256: str) -> tuple[int, Do]:
    """Confirm a job, which makes two records and two versions; then, as clients should, once more if that failed."""
    jobs = jobs_in(folder, 1)
    client = jobs.client(CONFIRMER)
    (lane,) = (thread for thread in threading.enumerate() if thread.name == "lane-0")

    def do() -> None:
        for _ in range(2):
            try:
                done = client.confirm(job_id, plan_sha256=plan_sha256, key=KEY)
            except TryLaterError as error:
                say(failed=error.detail)
            else:
                say(receipts=[list(msgspec.structs.astuple(receipt)) for receipt in done.receipts])
                break
        # The lane's connection is then the last one that closes, and so the one that empties the write-ahead log.
        jobs.store.reads.close()
        jobs.lane.close()

    return lane.native_id or 0, do


def relay_step(folder: Path, max_bytes: int) -> tuple[int, Do]:
    """Deliver a batch to the embedded archive and move the cursors; then, as a relay does, go on if that failed."""
    store = SqliteStore(folder, instance=1)
    told = threading.Event()
    said: dict[str, Any] = {}

    def step() -> None:
        told.wait()
        try:
            relay = relay_of(store, folder, max_bytes)
        except (AuditraceError, TelemetryError, OSError) as error:
            said["not_started"] = str(error)
            return
        for _ in range(4):
            # After an outage it goes on with one record, then with two, then with four.
            relay.once()
        try:
            said["left"] = len(relay._outbox.backlog())
        except TryLaterError as error:
            said["failed"] = error.detail

    # A thread of its own, so that what is said of it is not among its calls.
    thread = threading.Thread(target=step)
    thread.start()

    def do() -> None:
        told.set()
        thread.join()
        say(**said)

    return thread.native_id or 0, do


def configure_node(folder: Path, settings: dict[str, str], watched: str) -> tuple[int, Do]:
    """Configure a process that has just opened its ledger, as a start does, and say when it begins to work."""
    node = Node(read_settings(settings), "api", is_daemon=False)
    told = threading.Event()

    def step() -> None:
        told.wait()
        configure(node, CONFIGURED, (), lambda _: False)

    thread = threading.Thread(target=step, name="configure")
    thread.start()
    (found,) = (one for one in threading.enumerate() if one.name == watched)

    def do() -> None:
        told.set()
        thread.join()
        say(begins=True)

    return found.native_id or 0, do


def relay_of(store: SqliteStore, folder: Path, max_bytes: int) -> Relay:
    """Return a relay of the ledger in this folder to the archive beside it."""
    return Relay(
        store.outbox(),
        ArchiveSink(folder / "archive" / ARCHIVE, store.clock, max_bytes),
        RelaySettings(),
        Instruments(NoOpMeter("test")),
        store.clock,
        time.monotonic,
        random.Random(1).random,
    )


WORKS: Final[dict[str, Callable[..., tuple[int, Do]]]] = {
    "request": request,
    "relay": relay_step,
    "configure": configure_node,
}


def child(work: str, folder: Path, **more: Any) -> None:
    """Prepare, wait to be watched, and do it."""
    log = os.open(folder / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    # Where only ancestors may watch a process (Yama), it has to allow others.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    thread_id, do = WORKS[work](folder, **more)
    say(thread=thread_id)
    if next(heard()) == "go":
        do()


def main() -> None:
    """Fork a child for each line, and say how it ended."""
    while (line := next(heard(), None)) is not None:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(order.pop("work"), Path(order.pop("folder")), **order)
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(pid, 0)
        say(ended=os.waitstatus_to_exitcode(ended))


if __name__ == "__main__":
    main()
