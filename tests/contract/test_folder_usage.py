"""What a run's folder holds is counted, and removed, whatever the run did to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.execution.folder import remove_folder
from service.execution.folder_usage import MAX_DEPTH, FolderUsage

ROOT = Path(__file__).parents[2]
MANY = 2**40


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A working folder; it is removed as that of a run."""
    folder = tmp_path / "run" / "work"
    (folder / "out").mkdir(parents=True)
    yield folder
    remove_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _usage(work: Path, *, max_bytes: int = MANY, max_files: int = MANY, max_output: int = MANY) -> FolderUsage:
    descriptor = os.open(work, os.O_RDONLY)
    try:
        pids = [os.getpid()]
        usage = FolderUsage(descriptor, pids, max_bytes=max_bytes, max_files=max_files, max_output=max_output)
        usage.advance()
        return usage
    finally:
        os.close(descriptor)


def _exceeds(work: Path, **limits: int) -> tuple[str | None, str | None]:
    """Return what is exceeded with these limits, and with limits that are lower by one."""
    return _usage(work, **limits).exceeded, _usage(work, **{name: most - 1 for name, most in limits.items()}).exceeded


def test_every_name_counts_as_a_file(work: Path) -> None:
    """Files, folders, links and names that are no text count, wherever they lie."""
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "c").write_text("x")
    os.link(work / "a" / "b" / "c", work / "d")
    (work / "link").symlink_to("/")
    Path(os.fsdecode(os.fsencode(work) + b"/\xff\n")).write_text("x")
    assert _exceeds(work, max_files=7) == (None, "folder_files")


def test_space_is_what_the_file_system_allocated(work: Path) -> None:
    """A hole takes nothing, two names of a file take its space once, and what a link leads to takes nothing."""
    before = sum(path.lstat().st_blocks for path in work.rglob("*")) * 512
    full = work / "full"
    full.write_bytes(os.urandom(100_000))
    os.link(full, work / "again")
    os.truncate(os.open(work / "hole", os.O_CREAT | os.O_WRONLY), 1 << 30)
    (work / "link").symlink_to("/usr")
    allocated = full.stat().st_blocks * 512
    assert _exceeds(work, max_bytes=before + allocated) == (None, "folder_bytes")


def test_a_deleted_file_that_is_open_counts(work: Path) -> None:
    """It takes space until it is closed."""
    with (work / "gone").open("wb", 0) as file:
        file.write(bytes(1 << 20))
        (work / "gone").unlink()
        assert _usage(work, max_bytes=1 << 19).exceeded == "folder_bytes"
    assert _usage(work, max_bytes=1 << 19).exceeded is None


def test_sizes_in_out_count_as_output(work: Path) -> None:
    """Only regular files directly in the real `out/` do."""
    (work / "out" / "a").write_bytes(bytes(100))
    (work / "b").write_bytes(bytes(5000))
    assert _exceeds(work, max_output=100) == (None, "output_limit")
    (work / "out").rename(work / "in")
    (work / "out").symlink_to("in")
    assert _usage(work, max_output=99).exceeded is None


def test_folders_in_each_other_are_limited_and_removed(work: Path) -> None:
    """A tree of 10,000 levels is too deep to count, and is removed all the same."""
    descriptor = os.open(work, os.O_RDONLY)
    for level in range(10_000):
        if level == MAX_DEPTH:
            assert _usage(work).exceeded is None
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert _usage(work).exceeded == "folder_depth"


def test_one_step_is_bounded(work: Path) -> None:
    """A count that has no time goes on for one entry, and comes to its end in steps."""
    for number in range(100):
        (work / str(number)).touch()
    descriptor = os.open(work, os.O_RDONLY)
    usage = FolderUsage(descriptor, [], max_bytes=MANY, max_files=MANY, max_output=MANY)
    steps = 1
    while not usage.advance(0.0):
        steps += 1
    os.close(descriptor)
    assert steps == 102


def test_a_folder_that_its_owner_may_not_read_counts_and_keeps_its_mode(tmp_path: Path) -> None:
    """It is counted without rights that are left behind, and removed; needs root to become another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o777)
    command = [sys.executable, "-c", _AS_ANOTHER_USER, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("folder_files 0 False\n", "")


_AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from service.execution.command import control_process
from service.execution.folder import remove_folder
from service.execution.folder_usage import FolderUsage
os.chdir(sys.argv[1])
os.setresuid(61_998, 61_998, 61_998)
control_process(4, 1)
Path("run/work/closed/inner").mkdir(parents=True)
Path("run/work/closed").chmod(0)
descriptor = os.open("run/work", os.O_RDONLY)
usage = FolderUsage(descriptor, [], max_bytes=2**40, max_files=1, max_output=2**40)
usage.advance()
mode = os.stat("closed", dir_fd=descriptor).st_mode & 0o777
remove_folder(Path("run"))
print(usage.exceeded, mode, Path("run").exists())
"""


def test_what_is_mounted_in_a_folder_is_not_removed(tmp_path: Path) -> None:
    """A folder on which something is mounted stays with its content; needs root for a mount that nobody else sees."""
    (tmp_path / "run" / "work" / "m").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    script = (
        "import sys; from pathlib import Path; from service.execution.folder import remove_folder;"
        "remove_folder(Path(sys.argv[1]))"
    )
    mounted = 'mount --bind "$1/kept" "$1/run/work/m" && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(tmp_path)]
    python = [sys.executable, "-c", script, str(tmp_path / "run")]
    done = subprocess.run([*command, *python], capture_output=True, text=True, check=False, cwd=ROOT)
    if "denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("NO BIND MOUNT")
    assert done.stderr == ""
    assert (tmp_path / "kept" / "file").exists()
    remove_folder(tmp_path / "run")
