"""Whatever the umask is, everything that the service makes can be read and written by its owner only."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.poll_until import poll_until
from tests.support.service import Service


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """A umask that processes of the test inherit."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes_below(folder: Path, *left_out: str) -> dict[str, str]:
    """Return the mode of every file and folder that is neither 0600 nor 0700, by its name."""
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        if path.name not in left_out and stat.S_IMODE(status.st_mode) != wanted:
            found[str(path.relative_to(folder))] = oct(stat.S_IMODE(status.st_mode))
    return found


def test_everything_that_is_made_is_private(tmp_path: Path, umask: int) -> None:
    """Database and log, lock files, archive and full archives, keys, folders of runs, exports: 0600 and 0700.

    The users of runs may pass through the folder of all runs, and list nothing.
    """
    (tmp_path / "service").mkdir(mode=0o700)
    work = tmp_path / "made" / "runs" / "here"
    settings = {"AUDITRACE_AUDIT_ARCHIVE_MAX": "1KiB", "AUDITRACE_WORK_FOLDER": str(work)}
    with Service(tmp_path / "service", settings) as service:
        # The harness makes its own folder, templates and log.
        own = ("jobs.toml", "service.log")
        client = service.client()
        job_id = client.run("wait", file=str(tmp_path / "go"))
        client.until(job_id, "running")
        poll_until(lambda: work.exists() and any(work.iterdir()), "the folder of the run")
        assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in work.iterdir()] == ["0o700"]
        assert [oct(path.stat().st_mode & 0o777) for path in (work, work.parent, work.parent.parent)] == ["0o711"] * 3
        poll_until(lambda: len(list(service.archive.parent.iterdir())) > 2, "the archive to be rotated")
        service.command("export", "--output", str(service.folder / "export.jsonl"))
        assert {path.name for path in service.folder.iterdir()} >= {"auditrace.db-wal", "auditrace.db-shm"}
        assert modes_below(service.folder, *own) == {}
        (tmp_path / "go").touch()
        client.until(job_id, "succeeded")
        service.command("keys", "rotate")
    assert modes_below(service.folder, *own) == {}


def test_a_reader_of_the_archive_stays_one_after_a_rotation(tmp_path: Path) -> None:
    """A full archive that its group may read is followed by one that the group may read, and nobody may write."""
    with Service(tmp_path, {"AUDITRACE_AUDIT_ARCHIVE_MAX": "1KiB"}) as service:
        client = service.client()
        client.create("greet", name="a")
        service.archive.chmod(0o664)
        before = len(list(service.archive.parent.iterdir()))
        client.create("greet", name="b")
        poll_until(lambda: len(list(service.archive.parent.iterdir())) > before, "the archive to be rotated")
        poll_until(lambda: service.archive.exists() and service.archive.stat().st_size > 0, "the next archive")
        assert oct(service.archive.stat().st_mode & 0o777) == "0o644"
