"""What becomes of an exit status when nobody takes what a command prints, as in cron jobs and pipelines."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.bootstrap.node import open_node
from service.cli.main import main
from service.config import read_settings
from tests.support.collector import ROOT
from tests.support.service import Service


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A deployment that has stopped, with a key and its records in the archive."""
    service = Service(tmp_path_factory.mktemp("begun"))
    with open_node(read_settings(service.environment), "cli") as node:
        node.ensure_admin_key()
    service.command("relay", "--once")
    return service


PRINTING = {
    "JSON": ["templates", "--json"],
    "records": ["export"],
    "a verdict": ["verify", "--without-key"],
    "the version": ["--version"],
}


def _printed(service: Service, arguments: list[str], redirect: str) -> tuple[int, str]:
    """Run a command by a shell that redirects its output; return its exit status and its standard error."""
    line = f'"$@" {redirect}'
    command = ["bash", "-o", "pipefail", "-c", line, "bash", sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("redirect", ["> /dev/full", ">&-"], ids=["full", "closed"])
@pytest.mark.parametrize("what", PRINTING)
def test_an_output_that_cannot_be_written_is_no_negative_answer(begun: Service, what: str, redirect: str) -> None:
    """Exit status 1 would be the answer "broken": it is 2, with one line that says why."""
    status, errors = _printed(begun, PRINTING[what], redirect)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("auditrace: standard output cannot be written: ")


@pytest.mark.parametrize("form", ["", "--json"], ids=["words", "JSON"])
def test_a_verdict_counts_also_when_its_reader_has_seen_enough(begun: Service, tmp_path: Path, form: str) -> None:
    """`verify … | head` of a copy that is broken ends with 1, not with what an intact one gives."""
    archive = tmp_path / "audit.jsonl"
    shutil.copy(begun.archive, archive)
    arguments = ["verify", "--without-key", str(archive), *([form] if form else [])]
    archive.write_bytes(archive.read_bytes().replace(b"admin", b"amend"))
    assert b"amend" in archive.read_bytes()
    assert _printed(begun, arguments, "> /dev/null")[0] == 1
    assert _printed(begun, arguments, "| true") == (1, "")


def test_a_refusal_is_an_exit_status_where_nobody_can_be_told(tmp_path: Path) -> None:
    """A standard error that cannot be written changes nothing of it."""
    service = Service(tmp_path)
    for redirect in ("2> /dev/full", "2>&-"):
        assert _printed(service, ["keys", "list"], redirect)[0] == 2


def test_a_working_folder_that_is_gone_is_said_in_a_line(tmp_path: Path) -> None:
    """Relative paths lead nowhere then: exit status 2."""
    script = 'mkdir gone && cd gone && rmdir ../gone && "$@"'
    environment = {"PYTHONPATH": str(ROOT)}
    for arguments in (["keys", "list"], ["export"], ["migrate"], ["relay", "--once"]):
        command = ["bash", "-c", script, "bash", sys.executable, "-m", "service", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "None" not in done.stderr


def test_what_nobody_foresaw_is_no_negative_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the program itself shows where it is, and ends with 2: `verify` says "broken" with 1."""

    def fail(_: object) -> int:
        raise LookupError("a fault of the program")

    monkeypatch.setattr("service.cli.templates._templates", fail)
    assert main(["templates"]) == 2
    assert "LookupError: a fault of the program" in capsys.readouterr().err
