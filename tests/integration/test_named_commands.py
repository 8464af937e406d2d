"""The command line takes what texts and help tell to type, and a document's answer is told from another one."""

import re
import shlex

import pytest

from service.cli.main import COMMANDS, main
from tests.support.collector import ROOT
from tests.support.named_commands import DOCUMENTS, fault_of, is_unfinished, name_of, named_in
from tests.support.told import as_shown

ACTIONS = ("create", "revoke", "list", "public", "rotate")
HELPS = ["", *COMMANDS, *(f"keys {action}" for action in ACTIONS)]


def _told_commands() -> list[tuple[str, str]]:
    """Return where a command stands and the command: in documents, and in what the service and its alerts say."""
    sources = [*DOCUMENTS, *(ROOT / "service").rglob("*.py"), *(ROOT / "deploy").rglob("*.yaml"), ROOT / "jobs.toml"]
    return sorted(
        {
            (name_of(path), command)
            for path in sources
            for command in named_in(path.read_text(encoding="utf-8"))
            if "{" not in command
        }
    )


def _assert_is_taken(where: str, command: str) -> None:
    arguments = shlex.split(command.partition(" > ")[0].replace("…", ""))
    assert arguments[0] in COMMANDS, f"{where} names `auditrace {command}`"
    fault = fault_of(arguments)
    assert fault is None or is_unfinished(fault), f"{where} names `auditrace {command}`: {fault}"


@pytest.mark.parametrize(("where", "command"), _told_commands())
def test_every_command_that_is_named_exists_with_its_options(where: str, command: str) -> None:
    """What a text tells to run is taken by the command line; what it leaves out is said to be missing at most."""
    _assert_is_taken(where, command)


@pytest.mark.parametrize("asked", HELPS)
def test_every_command_that_a_help_text_names_exists(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of each command and action names only what the command line takes."""
    with pytest.raises(SystemExit):
        main([*asked.split(), "--help"])
    for command in named_in(capsys.readouterr().out):
        _assert_is_taken(f"auditrace {asked} --help", command)


def test_every_help_text_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """The actions that are asked above are those that `keys` has; no other command has actions."""
    found: dict[str, list[str]] = {}
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        _, _, actions = capsys.readouterr().out.partition("  ACTION\n")
        found |= {command: re.findall(r"^    (\w+)", actions, re.MULTILINE)} if actions else {}
    assert {name: set(actions) for name, actions in found.items()} == {"keys": set(ACTIONS)}


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("intact: 13 records in 1 stream", "intact: 2 records in 1 stream"),
        ("intact: 13 records in 1 stream, 2 checkpoints", "intact: 1 record in 2 streams, 1 checkpoint"),
        ('{"id": "01a214d1-a20e-7e72-af79-7be91424f082", …}', '{"id":"01a214d1-a20e-7e72-af79-7be91424f083","b":1}'),
        (
            "last: 2 of 2026-11-25T22:26:55.4Z, hash d950fb9ac764a16e",
            "last: 3 of 2027-01-01T00:00:00Z, hash 00fb9ac764",
        ),
    ],
)
def test_what_differs_from_run_to_run_is_compared_by_its_form(shown: str, real: str) -> None:
    """Numbers, ids, times and hashes may be others."""
    assert as_shown(shown).search(real)


@pytest.mark.parametrize(
    ("shown", "real"), [("intact: 13 records", "broken: 13 records"), ('"status": "created"', '"status": "failed"')]
)
def test_what_says_something_else_is_noticed(shown: str, real: str) -> None:
    """A word that is not the one that the document shows is none."""
    assert not as_shown(shown).search(real)
