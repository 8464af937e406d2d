"""Holds the fast path of the verification to the explaining one, over records that were tampered with at random.

`python -m tests.property.differential --records 3000000 --log docs/evidence/fast-path.md` makes the evidence that is
committed (docs/adr/0030).
"""

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from telemetry.audit.verify.record.intake import Intake
from tests.support.mutated_records import mutated

_CHUNK = 10_000
_NOWHERE = Path()


class Judged(NamedTuple):
    """How often both paths were asked, by the kind of change and by what they said."""

    accepted: Counter[str]
    """The fast path took the record, and the explaining one found the same in it."""
    declined_sound: Counter[str]
    """The fast path left to the explaining one what is sound."""
    declined: Counter[str]
    """The explaining path found something wrong, and the fast path had declined."""

    @classmethod
    def sum(cls, parts: Iterable["Judged"]) -> "Judged":
        """Return the counts of several runs together."""
        whole = cls(Counter(), Counter(), Counter())
        for part in parts:
            for count, more in zip(whole, part, strict=True):
                count.update(more)
        return whole

    @property
    def copies(self) -> int:
        """How many copies of records were judged."""
        return sum(map(Counter.total, self))


def judge(seed: int, records: int, first: int = 0) -> Judged:
    """Let both paths judge mutated records, from the number `first` on.

    Raises:
        AssertionError: the fast path took one of which the explaining path says or keeps anything else.
    """
    judged = Judged(Counter(), Counter(), Counter())
    for number in range(first, first + records):
        kind, found = mutated(seed, number)
        for one in found:
            fast, explained = Intake([], _NOWHERE, ""), Intake([], _NOWHERE, "")
            is_accepted = fast.take_fast(one)
            explained.take_apart(one)
            kept = explained.gathered()
            if is_accepted and fast.gathered() != kept:
                raise AssertionError(f"number {number} of seed {seed}, {kind}: {one} is {kept}")
            outcome = judged.accepted if is_accepted else judged.declined if kept.findings else judged.declined_sound
            outcome[kind] += 1
    return judged


def main(arguments: list[str]) -> int:
    """Run the long form and write its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--log", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    with ProcessPoolExecutor(chosen.workers) as pool:
        firsts = range(0, chosen.records, _CHUNK)
        parts = pool.map(partial(judge, chosen.seed, _CHUNK), firsts)
        judged = Judged.sum(parts)
    chosen.log.write_text(render(chosen.seed, len(firsts) * _CHUNK, judged, sum(os.times()[:4])), encoding="utf-8")
    sys.stdout.write(chosen.log.read_text(encoding="utf-8").partition("## Each")[0])
    return 0


def render(seed: int, records: int, judged: Judged, seconds: float) -> str:
    """Return the log of a run."""
    kinds = sorted(set().union(*judged))
    rows = "".join(f"| {kind} | {' | '.join(str(count[kind]) for count in judged)} |\n" for kind in kinds)
    accepted, declined_sound, declined = map(Counter.total, judged)
    again = f"python -m tests.property.differential --records {records} --seed {seed} --log FILE"
    return f"""# The fast path of the verification against the explaining one

Seed {seed}: {records} mutated records, in which the readers found {judged.copies} copies of records.
Both paths judged each copy.

* {accepted} were taken by the fast path. The explaining path found nothing wrong with them, and kept the same of each.
* {declined_sound} were declined by the fast path, and the explaining path found nothing wrong.
* {declined} were declined by the fast path, and the explaining path found something wrong.

It took {seconds / 60:.0f} minutes of processor time. `{again}` makes it again.

## Each kind of change

One record in four was changed in a second way too; it is counted under the last change.

| kind | taken | declined, sound | declined, broken |
|---|---|---|---|
{rows}"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
