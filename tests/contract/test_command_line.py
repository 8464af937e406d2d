"""The command line as a whole: what it says of itself, and how little it loads for what is short."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from service.cli.main import COMMANDS, main
from tests.support.collector import ROOT
from tests.support.service import Service

HEAVY = {"litestar", "uvicorn", "psycopg", "httpx", "grpc", "requests", "prometheus_client"}
"""What serving, delivering and PostgreSQL need: half a second of processor time to load."""


def _loaded(*arguments: str, folder: Service | None = None) -> set[str]:
    """Return the top-level packages that a command has loaded when it ends."""
    script = (
        "import sys; from service.cli.main import main; from contextlib import suppress\n"
        "with suppress(SystemExit): main(sys.argv[1:])\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=folder.environment if folder else {},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_what_says_something_about_the_program_loads_nothing_of_the_service(arguments: list[str]) -> None:
    """Help and version need neither HTTP nor OpenTelemetry, nor a database."""
    assert _loaded(*arguments) & (HEAVY | {"opentelemetry", "cryptography", "sqlite3"}) == set()


@pytest.mark.parametrize("arguments", [["keys", "--help"], ["templates"]])
def test_what_needs_no_database_loads_none(arguments: list[str]) -> None:
    """The help of a command, and the templates, load no server, no client and no PostgreSQL."""
    assert _loaded(*arguments) & HEAVY == set()


def test_a_list_of_keys_loads_its_database_alone(tmp_path: Path) -> None:
    """`keys list` on SQLite loads no server, no client and no PostgreSQL."""
    with Service(tmp_path) as service:
        service.key("ann", "viewer")
    assert _loaded("keys", "list", folder=service) & HEAVY == set()


def test_a_list_of_keys_leaves_no_record(tmp_path: Path) -> None:
    """Who only looks neither opens a stream nor closes one."""
    with Service(tmp_path) as service:
        service.key("ann", "viewer")
    before = service.rows("SELECT count(*) FROM audit_records")
    assert "ann" in service.command("keys", "list").stdout
    assert service.rows("SELECT count(*) FROM audit_records") == before


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`auditrace --version` prints one line and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"auditrace {version('auditrace')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that `--help` lists has a help of its own."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: auditrace {command} ")
