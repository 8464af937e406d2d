"""Jobs that attack: each ends within bounds with the right reason, nothing of it is left, and the rest goes on."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.execution.procfs import descendants
from tests.support.hostile import ISOLATIONS, PROGRAMS, hostile_service, template_of
from tests.support.poll_until import poll_until
from tests.support.runs import alive, open_to_all
from tests.support.service import Service

ENDED_S = 120.0


@pytest.fixture(scope="module", params=sorted(ISOLATIONS))
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in namespaces of its own, with a calm run that lasts as long as the module."""
    folder = tmp_path_factory.mktemp("hostile")
    # Users of runs pass through the folder of the test.
    open_to_all(folder)
    running = hostile_service(folder, str(request.param))
    running.start()
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def calm(service: Service) -> str:
    """A run that must not notice anything."""
    client = service.client()
    job = client.run("sleep", seconds=3600)
    client.until(job, "running")
    return job


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_hostile_job_ends_and_the_rest_goes_on(service: Service, calm: str, name: str) -> None:
    """It has its reason on record, none of its processes and files is left, and other runs go on and begin."""
    program, isolation = PROGRAMS[name], service.environment["AUDITRACE_ISOLATION"]
    expected = program.isolated if program.isolated and isolation != "off" else program.error_types
    client = service.client()
    marker = f"marker-{os.getpid()}-{template_of(name)}"
    job = client.run(template_of(name), marker=marker)
    ended = client.until(job, "succeeded", "failed", timeout_s=ENDED_S)
    (run,) = client.get(f"/v1/jobs/{job}/runs")["runs"]
    assert run["error_type"] in expected, run
    assert ended["status"] == ("failed" if run["error_type"] else "succeeded")
    assert alive(marker) == []
    last = client.trail(job)[-1]
    assert last["event_name"] == "job.status.transition"
    assert last["attributes"].get("error.type") == run["error_type"]
    if run["error_type"] is None:
        names = {each["name"] for each in client.get(f"/v1/jobs/{job}/runs/1/artifacts")["artifacts"]}
        assert names == {"stdout", "stderr", *program.artifacts}
    client.until(client.run("greet", name="you"), "succeeded")
    assert client.get(f"/v1/jobs/{calm}")["status"] == "running"
    folders = list((service.folder.parent / "runs").iterdir())
    assert len(folders) == 1, "only the calm run has a folder"


def test_nothing_is_left_of_a_fork_bomb_whose_worker_is_killed(tmp_path: Path) -> None:
    """The supervisor ends the run when its worker dies by SIGKILL, however fast the run forks."""
    service = hostile_service(tmp_path, "off")
    service.start()
    try:
        marker = f"marker-{os.getpid()}-storm"
        assert service.process is not None
        (serve,) = (
            pid
            for pid in descendants(service.process.pid)
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"{sys.executable}\0-m\0service".encode())
        )
        client = service.client()
        client.run("storm", marker=marker)
        poll_until(lambda: len(alive(marker)) > 100, "the storm", 60)
        os.kill(serve, signal.SIGKILL)
        poll_until(lambda: alive(marker) == [], "the end of the storm", ENDED_S)
        poll_until(lambda: list((tmp_path / "runs").iterdir()) == [], "the end of its folder", ENDED_S)
    finally:
        service.kill()
