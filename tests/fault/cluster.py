"""Random SIGKILLs of any process of a cluster and of its PostgreSQL, under load; also as a long run with a log.

`python -m tests.fault.cluster --kills 500 --records 1000000 --log docs/evidence/cluster.md` makes the evidence that is
committed.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.fault.cluster_load import ClusterLoad
from tests.fault.cluster_nodes import RELAYS, SERVERS, WORKERS, Cluster
from tests.fault.cluster_oracle import Judged, judge, require_receipts
from tests.support.poll_until import poll_until

_PATIENCE_S = 300.0


class Outcome(NamedTuple):
    """What a run of kills left."""

    lines: list[str]
    """One for each kill."""
    kills: Counter[str]
    receipts: int
    unanswered: int
    refused: int
    restarts: int
    judged: Judged


def kill_cluster(
    folder: Path,
    seed: int,
    kills: int,
    records: int = 0,
    minutes: float = 0.0,
    on_kill: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Kill parts of a cluster at random moments, and check after each that no acknowledged record is lost.

    Args:
        folder: gets everything.
        seed: of the moments and the targets.
        kills: how many, over all.
        records: how large the ledger is before the first.
        minutes: after how long the killing ends all the same; 0 for never.
        on_kill: is given the line of each kill, so that a run that breaks off has said how far it came.

    Raises:
        AssertionError: a promise was broken.
    """
    draw = random.Random(seed)
    counts: Counter[str] = Counter()
    lines: list[str] = []
    with Cluster(folder, records, time.time_ns()) as cluster:  # noqa: TID251 - of the records before the first kill
        load = ClusterLoad(cluster.urls, cluster.admin_key, cluster.executions, _OnTheirWay(cluster))
        with load:
            _await_receipts(cluster, load, 5)
            until = time.monotonic() + minutes * 60 if minutes else float("inf")
            checked = 0
            while len(lines) < kills and time.monotonic() < until:
                _await_receipts(cluster, load, draw.randrange(1, 12))
                # Not at the moment of an answer: anywhere in what follows it.
                threading.Event().wait(draw.random() * 0.05)
                target = draw.choice(cluster.targets)
                acknowledged = len(load.receipts)
                cluster.kill(target, draw)
                counts[target] += 1
                _require_receipts(cluster, load.receipts[checked:acknowledged])
                checked = acknowledged
                lines.append(f"{target} killed ({counts[target]}); all of {acknowledged} receipts were there")
                on_kill(f"{len(lines)}. {lines[-1]}")
            _await_receipts(cluster, load, 20)
            await_checkpoint(cluster, load)
        cluster.settle()
        require_receipts(cluster, load.receipts)
        judged = judge(cluster)
        return Outcome(lines, counts, len(load.receipts), load.unanswered, load.refused, cluster.restarts, judged)


def _await_receipts(cluster: Cluster, load: ClusterLoad, more: int) -> None:
    goal = len(load.receipts) + more

    def is_there() -> bool:
        load.require_sound()
        cluster.keep_running()
        return len(load.receipts) >= goal

    poll_until(is_there, f"{more} more receipts", _PATIENCE_S)


def await_checkpoint(cluster: Cluster, load: ClusterLoad) -> None:
    """Wait for one more than there is now: whoever was killed, somebody goes on to write them."""
    before: list[tuple[object, ...]] = []

    def is_written() -> bool:
        load.require_sound()
        cluster.keep_running()
        try:
            found = cluster.rows("SELECT max(number) FROM audit_checkpoints")
        except psycopg.OperationalError:
            return False
        if not before:
            before.extend(found)
        return found != before

    poll_until(is_written, "a checkpoint behind the kills", _PATIENCE_S)


def _require_receipts(cluster: Cluster, receipts: Sequence[Mapping[str, Any]]) -> None:
    """Check receipts as soon as PostgreSQL answers, which may recover a moment after it was found to answer."""

    def is_checked() -> bool:
        try:
            require_receipts(cluster, receipts)
        except psycopg.OperationalError:
            return False
        return True

    poll_until(is_checked, "PostgreSQL to answer", _PATIENCE_S)


class _OnTheirWay:
    """Counts the runs that are, not more often than once a second: it takes a look at every job."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = 0
        self._until = 0.0

    def __call__(self) -> int:
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + 1
            sql = "SELECT count(*) FROM jobs WHERE status IN ('draft_ready', 'queued', 'running')"
            try:
                self._count = int(str(self._cluster.rows(sql)[0][0]))
            except psycopg.OperationalError:
                self._count = sys.maxsize
        return self._count


def main(arguments: list[str]) -> int:
    """Run the long form and write its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of all parts together")
    parser.add_argument("--records", type=int, default=0, help="how large the ledger is before the first kill")
    parser.add_argument("--minutes", type=float, default=0.0, help="for how long to kill, at most")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--log", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    sys.stderr.write(f"seed {chosen.seed}\n")
    with tempfile.TemporaryDirectory(prefix="auditrace-cluster-") as folder:
        outcome = kill_cluster(
            Path(folder),
            chosen.seed,
            chosen.kills,
            chosen.records,
            chosen.minutes,
            on_kill=lambda line: sys.stderr.write(f"{line}\n"),
        )
    chosen.log.parent.mkdir(parents=True, exist_ok=True)
    chosen.log.write_text(render(chosen.seed, chosen.records, outcome), encoding="utf-8")
    sys.stdout.write(chosen.log.read_text(encoding="utf-8").partition("## Each kill")[0])
    return 0


def render(seed: int, records: int, outcome: Outcome) -> str:
    """Return the log of a run."""
    kills = ", ".join(f"{count} of {name}" for name, count in sorted(outcome.kills.items()))
    numbered = "".join(f"{number}. {line}\n" for number, line in enumerate(outcome.lines, start=1))
    judged = outcome.judged
    lines = [
        (
            f"{outcome.receipts} requests were acknowledged; after each kill, and at the end, every receipt was a"
            " committed record with its place and hash."
        ),
        (
            f"{outcome.unanswered} requests got no answer and {outcome.refused} a 503, and were repeated under their"
            " Idempotency-Key at another server."
        ),
        f"{outcome.restarts} processes started while the database was away, said so, ended, and were started again.",
        (
            f"{judged.jobs} jobs were run in {judged.runs} attempts: none was executed twice, each success exactly"
            f" once. {judged.unknown} attempts whose worker died ended as `unknown`."
        ),
        (
            f"{judged.records} records in {judged.streams} streams under {judged.checkpoints} checkpoints: `auditrace"
            " doctor --ledger` found nothing wrong in the database, `verify` said of the archive that it is intact,"
            " and both held the same records."
        ),
    ]
    return f"""# Random kills in a cluster

{SERVERS} `serve`, {WORKERS} `work` and {RELAYS} `relay` processes on one PostgreSQL with fsync, over a ledger that held
{records} records before. Seed {seed}; {sum(outcome.kills.values())} SIGKILLs: {kills}.

{"".join(f"* {line}{chr(10)}" for line in lines)}
## Each kill

{numbered}"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
