"""Nothing that was acknowledged is lost, and nothing is half done, at whichever system call a process dies or fails.

A child carries out one request through the real lane, or one step of the relay to the embedded archive. It is done
once undisturbed to learn its calls; then again for each of them, from the same files, and that call kills the process
or fails. What is left on disk is judged by other processes.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.fault.aftermath import (
    stories,
    wrong_in_archive,
    wrong_in_database,
    wrong_in_job,
    wrong_in_receipts,
    wrong_when_confirmed_again,
    wrong_when_delivered_again,
)
from tests.fault.fault_child import jobs_in, relay_of
from tests.fault.faults import Children, Ended, Fault
from tests.support.jobs import Jobs

PASSING: Final = "EIO once"
FAULTS: Final = {
    "SIGKILL": ("signal=KILL", False),
    PASSING: ("error=EIO", False),
    "ENOSPC from there on": ("error=ENOSPC", True),
}

Judge = Callable[[Path, Ended], Iterator[str]]


class Start(msgspec.Struct, frozen=True):
    """The files that every child starts from, what it is to do, and the calls that it makes of that undisturbed."""

    folder: Path
    order: Mapping[str, Any]
    calls: Sequence[str]


class Draft(msgspec.Struct, frozen=True):
    """A job that waits to be confirmed, and its story before and after that."""

    start: Start
    before: Sequence[str]
    after: Sequence[str]


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """The process that forks the children."""
    with Children(tmp_path_factory.mktemp("children") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def drafted(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    """A drafted job in a ledger with a checkpoint."""
    base = tmp_path_factory.mktemp("drafted")
    jobs = ledger_in(base)
    client = jobs.client("anna")
    job_id = client.create("guarded", {}).value.job_id
    plan = client.draft(job_id).value.plan
    assert plan is not None
    jobs.store.checkpoints(jobs.lane).write()
    before = jobs.stories(job_id)
    jobs.close()
    start, undisturbed = counted(children, base, work="request", job_id=job_id, plan_sha256=plan.sha256)
    after = stories(undisturbed / "ledger.db", job_id)
    assert after == [*before, "job.confirm success draft_ready>confirmed", "job.run.trigger success confirmed>queued"]
    return Draft(start, before, after)


@pytest.fixture(scope="module")
def undelivered(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """A ledger of which a part is in the archive, whose file has to be rotated before the next line."""
    base = tmp_path_factory.mktemp("undelivered")
    jobs = ledger_in(base)
    jobs.client("anna").create("guarded", {})
    jobs.store.checkpoints(jobs.lane).write()
    assert relay_of(jobs.store, jobs.folder, 1_000_000).drain(60)
    jobs.client("anna").create("guarded", {})
    jobs.close()
    start, undisturbed = counted(children, base, work="relay", max_bytes=10)
    assert len(list((undisturbed / "archive").iterdir())) == 2
    return start


def ledger_in(base: Path) -> Jobs:
    """Return a new ledger, in the folder that children will start from."""
    (base / "start").mkdir()
    return jobs_in(base / "start", 0)


def counted(children: Children, base: Path, **order: Any) -> tuple[Start, Path]:
    """Let a child do its work undisturbed; returns the start for all others, and what this one left."""
    undisturbed = Path(shutil.copytree(base / "start", base / "undisturbed"))
    return Start(base / "start", order, children.calls(folder=undisturbed, **order)), undisturbed


def sweep(children: Children, start: Start, tmp_path: Path, fault: str, judge: Judge) -> None:
    """Let a child work with the fault at each call, and judge what it leaves; says how they ended."""
    what, is_lasting = FAULTS[fault]
    endings: Counter[str] = Counter()
    wrong: list[str] = []
    for place in range(len(start.calls)):
        injected = Fault(what, start.calls, place, is_lasting)
        folder = Path(shutil.copytree(start.folder, tmp_path / str(place)))
        ended = children.run(folder=folder, fault=injected, **start.order)
        wrong += [f"{injected}: {text}" for text in judge(folder, ended)]
        endings.update({f"with status {ended.status}"} | {f"saying {word}" for line in ended.said for word in line})
        shutil.rmtree(folder)
    counts = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    sys.stdout.write(f"{start.order['work']}, {fault}: {len(start.calls)} calls; ended {counts}\n")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_is_done_or_not_done_wherever_it_fails(
    children: Children, drafted: Draft, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever call fails: the ledger is intact, receipts hold, the job is changed wholly or not, and work goes on."""
    job_id, plan_sha256 = drafted.start.order["job_id"], drafted.start.order["plan_sha256"]

    def judge(folder: Path, ended: Ended) -> Iterator[str]:
        path = folder / "ledger.db"
        yield from wrong_in_database(path)
        yield from wrong_in_receipts(path, ended)
        yield from wrong_in_job(drafted.before, drafted.after, stories(path, job_id), ended)
        yield from wrong_when_confirmed_again(folder, job_id, plan_sha256, drafted.after)
        if fault == PASSING and not ended.values("receipts"):
            yield f"the fault has passed, and the request still fails: {ended.values('failed')}"

    with capsys.disabled():
        sweep(children, drafted.start, tmp_path, fault, judge)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_record_is_delivered_or_stays_undelivered_wherever_the_relay_fails(
    children: Children, undelivered: Start, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever call fails: what counts as delivered is in an intact archive, and the next relay brings the rest."""

    def judge(folder: Path, ended: Ended) -> Iterator[str]:
        yield from wrong_in_database(folder / "ledger.db")
        yield from wrong_in_archive(folder)
        yield from wrong_when_delivered_again(folder, undelivered.order["max_bytes"])
        if fault == PASSING and not ended.values("not_started") and ended.values("left") != (0,):
            yield f"the fault has passed, and the relay still does not deliver: {ended.said}"

    with capsys.disabled():
        sweep(children, undelivered, tmp_path, fault, judge)
