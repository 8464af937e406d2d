"""What the documents tell their readers to type works as it is printed, and shows what they say it shows."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.cli.main import COMMANDS, parser
from tests.support.collector import LISTENERS, NOBODY_GRPC, NOBODY_HTTP, ROOT, require_collector
from tests.support.documented import Block, blocks_of
from tests.support.ports import ReservedPorts
from tests.support.told import Shell, as_shown, typed_in

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)
TOUR = ("The first five minutes", "With a Collector")

RUNS_ON = {"make run": "service", "auditrace serve": "service", "build/bin/otelcol": "collector"}
PORTS = ("4317", "4318", "4327", "4328", "13133", "8888")

_COMMAND = re.compile(r"`(?:\.venv/bin/)?auditrace ([a-z][^`]*)`")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _kind(command: str) -> str | None:
    return next((kind for program, kind in RUNS_ON.items() if program in command), None)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell whose ports are the test's own; the collector's backends are away."""
    reserved = ReservedPorts(1 + len(LISTENERS))
    port, *ports = map(str, reserved.numbers)
    listeners = dict(zip(LISTENERS, ports, strict=True))
    environment = {
        "AUDITRACE_PORT": port,
        # So that nobody waits a minute for the second checkpoint.
        "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
        **{f"{name}_ENDPOINT": f"127.0.0.1:{number}" for name, number in listeners.items()},
        "COLLECTOR_METRICS_HOST": "127.0.0.1",
        "COLLECTOR_METRICS_PORT": listeners["COLLECTOR_METRICS"],
        **dict.fromkeys(("AUDIT_LOGS_ENDPOINT", "LOGS_ENDPOINT", "METRICS_ENDPOINT"), NOBODY_HTTP),
        **dict.fromkeys(("TRACES_ENDPOINT", "JAEGER_ENDPOINT"), NOBODY_GRPC),
    }
    instead = {
        "8080": port,
        **dict(zip(PORTS, ports, strict=True)),
        "/backup/archive": str(tmp_path / "clone" / "var" / "archive"),
    }
    with Shell(tmp_path / "clone", environment, instead) as opened:
        yield opened


def _follow(shell: Shell, block: Block) -> None:
    for typed in typed_in(block.text):
        kind = _kind(typed.command)
        if kind is None:
            shell.follow(typed)
        else:
            shell.start(typed, kind)


def _sections(document: Path, *sections: str) -> list[Block]:
    return [block for block in blocks_of(document) if block.section in sections and block.language == "console"]


def test_the_readme_leads_a_newcomer_to_a_verified_trail_and_on_to_a_collector(shell: Shell) -> None:
    """The first five minutes, then the collector, in their order, end with a sink that is intact."""
    require_collector()
    for block in _sections(ROOT / "README.md", *TOUR):
        _follow(shell, block)


def _told_commands() -> list[tuple[str, str]]:
    """Return where a command stands and the command: in documents, and in what the service and its alerts say."""
    sources = [*DOCUMENTS, *(ROOT / "service").rglob("*.py"), *(ROOT / "deploy").rglob("*.yaml"), ROOT / "jobs.toml"]
    return sorted(
        {
            (_name(path), command)
            for path in sources
            for command in _COMMAND.findall(path.read_text(encoding="utf-8"))
            if "{" not in command
        }
    )


@pytest.mark.parametrize(("where", "command"), _told_commands())
def test_every_command_that_is_named_exists_with_its_options(
    where: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a text tells to run is taken by the command line; what it leaves out is said to be missing at most."""
    arguments = shlex.split(command.partition(" > ")[0].replace("…", ""))
    assert arguments[0] in {one.name for one in COMMANDS}, f"{where} names `auditrace {command}`"
    with suppress(SystemExit):
        parser(arguments[0]).parse_args(arguments)
    said = capsys.readouterr().err
    assert not said or "are required" in said or "expected one argument" in said, (
        f"{where} names `auditrace {command}`: {said}"
    )


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("intact: 13 records in 1 stream", "intact: 2 records in 1 stream"),
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
