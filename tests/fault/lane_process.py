"""A process of its own with a lane and a checkpoint writer on a shared ledger, which tests pause, kill and give orders.

Run as `python -m tests.fault.lane_process FOLDER INSTANCE`. Orders come as lines of JSON on standard input; every
receipt is printed once its record is committed, and a last line when the order is carried out.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.errors import TryLaterError
from tests.support.collector import ROOT
from tests.support.poll_until import poll_until
from tests.support.processes import start_process
from tests.support.sqlite_stores import SqliteStore

TIMEOUT_S = 60.0


class SteppingClock:
    """The system's clock, and the steps that a test lets it make."""

    def __init__(self) -> None:
        self._offset_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self._offset_ns  # noqa: TID251 - the clock of a real process

    def step(self, seconds: float) -> None:
        """Step forward, back if negative."""
        self._offset_ns += int(seconds * 1e9)


class LaneProcess:
    """The parent's side: starts the process, gives orders, collects the receipts that it acknowledged."""

    def __init__(self, folder: Path, instance: int) -> None:
        self.receipts: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "tests.fault.lane_process", str(folder), str(instance)]
        self._process = start_process(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def order(self, do: str, **more: Any) -> None:
        """Give an order, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the order that was given first and not waited for yet."""
        poll_until(lambda: bool(self._answers) or not self._reader.is_alive(), "an answer", timeout_s=TIMEOUT_S)
        assert self._answers, f"the process ended with {self._process.wait()}"
        return self._answers.pop(0)

    def carry_out(self, do: str, **more: Any) -> dict[str, Any]:
        """Give an order, and wait for its end."""
        self.order(do, **more)
        return self.answer()

    def pause(self) -> None:
        """Stop the process with SIGSTOP, and return when all of it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let a paused process go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL, and keep every receipt that it had printed."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def close(self) -> None:
        """End the process as a clean shutdown does."""
        self.order("close")
        assert self._process.wait(TIMEOUT_S) == 0
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # A killed process may leave a last line in part: what it did not say was not acknowledged.
            if line.endswith("\n"):
                said = json.loads(line)
                (self.receipts if "record_id" in said else self._answers).append(said)


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _orders() -> Iterator[dict[str, Any]]:
    while line := sys.stdin.readline():
        yield json.loads(line)


def _commit(store: SqliteStore, submit: Callable[..., Any]) -> None:
    receipt = submit(lambda transaction: transaction.save(store.fact())).result()
    _say(
        record_id=receipt.record_id,
        stream_id=receipt.stream_id,
        number=receipt.sequence_number,
        hash=receipt.record_hash,
    )


def _main(folder: Path, instance: int) -> None:
    clock = SteppingClock()
    store = SqliteStore(folder, clock=clock, instance=instance)
    lane = store.lane()
    writer = store.checkpoints(lane)
    _say(ready=os.getpid())
    for order in _orders():
        match order["do"]:
            case "commit":
                for _ in range(order["count"]):
                    _commit(store, lane.submit)
                _say(committed=order["count"])
            case "load":
                # Until the next order comes.
                while not select.select([sys.stdin], [], [], 0)[0]:
                    try:
                        _commit(store, lane.submit)
                    except TryLaterError:
                        continue
                _say(loaded=True)
            case "checkpoint":
                written = writer.write()
                _say(numbers=list(written.numbers) if written else None, closed=list(written.closed) if written else [])
            case "step":
                clock.step(order["seconds"])
                _say(stepped=order["seconds"])
            case "close":
                lane.close(writer.write_last)
                store.close()
                return


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
