"""The shipped configuration and its overlays are what the collector accepts, and what it makes of them is on record."""

import subprocess
from pathlib import Path

import pytest

from tests.support.collector import CONFIG, ROOT, Collector, require_collector

SCRIPT = ROOT / "deploy" / "otelcol" / "effective.sh"


@pytest.mark.parametrize("name", ["base", "tls", "pass-through"])
def test_the_collector_accepts_it_and_resolves_it_as_recorded(name: str) -> None:
    """`validate` passes, and `print-config` is byte for byte what deploy/otelcol/effective holds."""
    require_collector()
    ran = subprocess.run([SCRIPT, "--check", name], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_check_fails_on_a_difference(tmp_path: Path) -> None:
    """A changed record is shown as a difference, with the command that writes it anew."""
    require_collector()
    folder = tmp_path / "deploy" / "otelcol"
    folder.mkdir(parents=True)
    (tmp_path / "build").symlink_to(ROOT / "build")
    (tmp_path / CONFIG.name).write_bytes(CONFIG.read_bytes())
    for path in SCRIPT.parent.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / SCRIPT.name).chmod(0o755)
    recorded = (SCRIPT.parent / "effective" / "base.yaml").read_text("utf-8")
    (folder / "effective").mkdir()
    (folder / "effective" / "base.yaml").write_text(recorded.replace("fsync: true", "fsync: false"), "utf-8")
    ran = subprocess.run([folder / SCRIPT.name, "--check", "base"], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "-        fsync: false\n+        fsync: true\n" in ran.stdout
    assert "deploy/otelcol/effective.sh base" in ran.stderr


def test_it_starts_with_nothing_but_settings_and_says_what_it_listens_on(tmp_path: Path) -> None:
    """The process is healthy, made its folders, and warns of nothing but the backends that this test leaves away."""
    with Collector(tmp_path) as collector:
        assert collector.queue_dir.is_dir()
        assert collector.archive_dir.is_dir()
        warnings = [line for line in collector.log_path.read_text("utf-8").splitlines() if '"level":"info"' not in line]
    assert [line for line in warnings if "127.0.0.1:1" not in line] == []
