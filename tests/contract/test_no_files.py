"""What is no file where a file should be is refused at once: a start, or a command, never waits for it."""

import faulthandler
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from service.cli.main import main
from tests.contract.start_breaks import JWT
from tests.support.collector import ROOT

_GUARD_S: Final = 600


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        # The whole path may be longer than the kernel allows.
        bound.bind(os.path.relpath(path))


def _link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("target"))
    path.symlink_to("target")


KINDS: Final[Mapping[str, Callable[[Path], object]]] = {
    "a FIFO": _fifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": _socket,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to a FIFO": _link_to_a_fifo,
}

_OTLP: Final = {"AUDITRACE_AUDIT_ENDPOINT": "https://127.0.0.1:9/v1/logs"}
_ENDPOINT: Final = '[endpoints.hook]\nurl = "https://127.0.0.1:9/"\nallow_private = true\n'
_SECRET: Final = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMu"

COMMANDS: Final = (
    "verify {path} --without-key",
    "verify {folder} --without-key --receipt {path}",
    "verify {folder} --public-key {path}",
    "verify --without-key --compare {path} {path}",
    "verify --without-key --database sqlite:///{path}",
    "copy --from sqlite:///{path} --to postgresql:///x",
    "keys rotate --new-key {path}",
    "export --output {path}",
)

# What is set, the settings that name what is no file, and which variables the refusal names.
GROUPS: Final[Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]] = {
    "database and declarations": (
        JWT,
        {
            "AUDITRACE_DATABASE": "sqlite:///{path}",
            "AUDITRACE_TEMPLATES": "{path}",
            "AUDITRACE_WEBHOOKS": "{path}",
            "AUDITRACE_AUDIT_ARCHIVE": "{path}",
            "AUDITRACE_JWT_JWKS": "{path}",
        },
    ),
    "keys": (
        {},
        {"AUDITRACE_SIGNING_KEY": "{path}", "AUDITRACE_LEDGER_SECRET": "{path}", "AUDITRACE_ADMIN_KEY": "{path}"},
    ),
    "files of the sink": (
        _OTLP,
        {
            "AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE": "{path}",
            "AUDITRACE_AUDIT_TOKEN_FILE": "{path}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "{path}",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "{path}",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "{path}",
        },
    ),
    "files of libpq": (
        {"AUDITRACE_DATABASE": "postgresql://127.0.0.1:1/x", "PGSERVICE": "x"},
        dict.fromkeys(("PGPASSFILE", "PGSERVICEFILE", "PGSSLCERT", "PGSSLKEY", "PGSSLROOTCERT"), "{path}"),
    ),
}


class Commands:
    """Runs commands in an empty folder, in this process; one that waits for ever ends the test run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.place = folder / "no-file"
        self._patch, self._capsys = patch, capsys
        patch.chdir(folder)

    def run(self, variables: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error."""
        faulthandler.dump_traceback_later(_GUARD_S, exit=True, file=sys.__stderr__)
        try:
            with self._patch.context() as patch:
                for name, value in {"AUDITRACE_PORT": "0", **variables}.items():
                    patch.setenv(name, value)
                status = main(arguments)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return status, *self._capsys.readouterr()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands in an empty folder."""
    return Commands(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_a_start_refuses_at_once_what_is_no_file(commands: Commands, group: str, kind: str) -> None:
    """Exit status 2; a line names each setting, nothing is made, and `doctor` says the same."""
    others, settings = GROUPS[group]
    KINDS[kind](commands.place)
    before = sorted(commands.folder.rglob("*"))
    variables = {**others, **{name: value.format(path=commands.place) for name, value in settings.items()}}
    status, _, errors = commands.run(variables, "serve")
    assert status == 2, errors
    assert {name for name in settings if name not in errors} == set(), errors
    assert "Traceback" not in errors
    assert sorted(commands.folder.rglob("*")) == before
    status, told, _ = commands.run(variables, "doctor")
    assert status in {1, 2}
    assert {name for name in settings if name not in told} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_a_webhook_names_are_looked_at_too(commands: Commands, kind: str) -> None:
    """The line says which endpoint it is, for its secret and for its certificates."""
    KINDS[kind](commands.place)
    hooks, secret = commands.folder / "webhooks.toml", commands.folder / "secret"
    secret.touch(0o600)
    secret.write_text(_SECRET)
    for files in ('secret_file = "no-file"', 'secret_file = "secret"\nca_file = "no-file"'):
        hooks.write_text(f"{_ENDPOINT}{files}\n")
        status, _, errors = commands.run({"AUDITRACE_WEBHOOKS": str(hooks)}, "serve")
        assert status == 2, errors
        assert "endpoints.hook" in errors
        assert "no-file" in errors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_at_once_what_is_no_file(commands: Commands, command: str, kind: str) -> None:
    """Exit status 2 and a line; a folder is a copy of the ledger, in which there is nothing."""
    if kind == "a folder" and "{path} --without-key" in command:
        return
    KINDS[kind](commands.place)
    arguments = [part.format(path=commands.place, folder=commands.folder) for part in command.split()]
    status, printed, errors = commands.run({}, *arguments)
    assert status == 2, printed
    assert "Traceback" not in errors


def test_a_pipe_that_the_shell_has_opened_is_read(tmp_path: Path) -> None:
    """A key that another command prints needs no file of its own."""
    pipe = f"printf x | exec {sys.executable} -m service verify {tmp_path} --public-key /dev/stdin"
    done = subprocess.run(["sh", "-c", pipe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "/dev/stdin is not a PEM public key" in done.stderr
