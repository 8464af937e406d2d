"""The benchmarks run, in a size that says nothing about speed."""

import subprocess
import sys
from pathlib import Path

from tests.support.runs import open_to_all

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run benchmarks that keep their ledgers in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_benchmark_of_verify_finds_the_one_altered_record(tmp_path: Path) -> None:
    """In its small size the benchmark verifies a ledger with one alteration, which is found, and nothing else."""
    ran = run(tmp_path, "verify", "--small")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the altered record: hash_attribute, index_differs, leaves, link_broken" in ran.stdout
    assert "ratio: " in ran.stdout


def test_the_benchmark_of_memory_verifies_both_sizes(tmp_path: Path) -> None:
    """In its small size the benchmark verifies two ledgers that are intact, and compares the peaks of memory."""
    ran = run(tmp_path, "verify-memory", "--small")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("intact in") == 2
    assert "ratio: " in ran.stdout


def test_the_benchmark_of_isolation_runs_under_each(tmp_path: Path) -> None:
    """In its small size the benchmark compares a run in a sandbox with one without."""
    open_to_all(tmp_path)
    ran = run(tmp_path, "isolation", "--small")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "bubblewrap " in ran.stdout


def test_a_benchmark_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A name that no benchmark has is refused, with the names that there are."""
    ran = run(tmp_path, "speed")

    assert ran.returncode == 2
    assert "there is no benchmark speed" in ran.stderr
