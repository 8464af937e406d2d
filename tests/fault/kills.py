"""Random SIGKILLs of service, relay and collector under load, then the oracle; also as a long run with a log.

`python -m tests.fault.kills --kills 200 --log docs/evidence/kills.md` makes the evidence that is committed.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.deployment import Deployment
from tests.support.load import Load
from tests.support.oracle import committed, require_conserved, require_receipts, require_whole_jobs
from tests.support.poll_until import poll_until


class Outcome(NamedTuple):
    """What a run of kills left."""

    lines: list[str]
    """One for each kill."""
    kills: Counter[str]
    receipts: int
    records: int
    unanswered: int


def kill_at_random(folder: Path, seed: int, kills: int, minutes: float = 0.0) -> Outcome:
    """Kill each of the three processes `kills` times at random moments, then check that nothing was lost or altered.

    Args:
        folder: gets everything.
        seed: of the moments.
        kills: of each process, at least.
        minutes: for how long to go on, at least.

    Raises:
        AssertionError: something was.
    """
    counts: Counter[str] = Counter()
    lines: list[str] = []
    lock = threading.Lock()
    with Deployment(folder) as deployment:
        load = deployment.load()

        def note(what: str) -> None:
            with lock:
                counts[what] += 1
                lines.append(f"{what} killed ({counts[what]}) at {len(load.receipts)} receipts")

        restarts: dict[str, Callable[[], None]] = {
            "service": lambda: _restart(deployment.service.kill, deployment.service.start, lambda: note("service")),
            "relay": lambda: _restart(deployment.relay.kill, deployment.relay.start, lambda: note("relay")),
            "collector": lambda: _restart(
                deployment.collector.kill, deployment.collector.start, lambda: note("collector")
            ),
        }
        with load:
            until = time.monotonic() + minutes * 60
            killers = [
                _Killer(random.Random(f"{seed} {name}"), kills, until, restart, load)
                for name, restart in restarts.items()
            ]
            for killer in killers:
                killer.start()
            for killer in killers:
                killer.join()
            for killer in killers:
                if killer.failure is not None:
                    raise killer.failure
            load.wait_for(20)
        deployment.settle()
        require_receipts(deployment, load.receipts)
        require_whole_jobs(deployment)
        require_conserved(deployment, folder)
        return Outcome(lines, counts, len(load.receipts), len(committed(deployment)), load.unanswered)


class _Killer(threading.Thread):
    """Kills one process again and again, each time after a random number of acknowledged requests."""

    def __init__(self, draw: random.Random, kills: int, until: float, restart: Callable[[], None], load: Load) -> None:
        super().__init__(daemon=True)
        self._until = until
        self.failure: BaseException | None = None
        self._draw = draw
        self._kills = kills
        self._restart = restart
        self._load = load

    def run(self) -> None:
        try:
            done = 0
            while done < self._kills or time.monotonic() < self._until:
                done += 1
                goal = len(self._load.receipts) + self._draw.randrange(1, 40)
                poll_until(lambda goal=goal: len(self._load.receipts) >= goal, "progress between two kills", 300)
                # Not at the moment of an answer: anywhere in what follows it.
                threading.Event().wait(self._draw.random() * 0.05)
                self._restart()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that joins
            self.failure = error


def _restart(kill: Callable[[], None], start: Callable[[], None], note: Callable[[], None]) -> None:
    kill()
    note()
    start()


def main(arguments: list[str]) -> int:
    """Run the long form and write its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1, help="of each process, at least")
    parser.add_argument("--minutes", type=float, default=0.0, help="for how long to go on, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--log", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="auditrace-kills-") as folder:
        outcome = kill_at_random(Path(folder), chosen.seed, chosen.kills, chosen.minutes)
    chosen.log.parent.mkdir(parents=True, exist_ok=True)
    chosen.log.write_text(render(chosen.seed, outcome), encoding="utf-8")
    sys.stdout.write(chosen.log.read_text(encoding="utf-8").partition("## Each kill")[0])
    return 0


def render(seed: int, outcome: Outcome) -> str:
    """Return the log of a run."""
    kills = ", ".join(f"{count} of the {name}" for name, count in sorted(outcome.kills.items()))
    numbered = "".join(f"{number}. {line}\n" for number, line in enumerate(outcome.lines, start=1))
    return f"""# Random kills under load

Seed {seed}; SIGKILLs: {kills}.

* {outcome.receipts} requests were acknowledged; every receipt was a committed record with its hash afterwards.
* {outcome.unanswered} requests got no answer and were repeated under their Idempotency-Key.
* {outcome.records} records were committed; each was in the collector's archive and in the backend, unaltered,
  and nothing else was there.
* Archive and backend verified as intact; every job version had exactly one record.

## Each kill

{numbered}"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
