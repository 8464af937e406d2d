"""Finds the `auditrace` commands that texts name, and asks the command line whether it would take them."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from service.cli.main import parser
from tests.support.collector import ROOT

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)

_COMMAND = re.compile(r"`(?:\.venv/bin/)?auditrace ([a-z][^`]*)`")


def name_of(path: Path) -> str:
    """Return the name of a file of the repository."""
    return str(path.relative_to(ROOT))


def named_in(text: str) -> list[str]:
    """Return the commands that a text names, without the program."""
    # Line breaks and indentation of a help text are none of the command.
    return [" ".join(command.split()) for command in _COMMAND.findall(text)]


def fault_of(arguments: Sequence[str]) -> str | None:
    """Return what the command line says against these arguments; None when it takes them."""
    said = io.StringIO()
    with suppress(SystemExit), redirect_stderr(said), redirect_stdout(said):
        parser(arguments[0]).parse_args(arguments)
        return None
    return said.getvalue()


def is_unfinished(fault: str | None) -> bool:
    """Whether a fault is only that something is left out, as in a text that names an option without its value."""
    return fault is not None and re.search(r"are required|expected \w+ arguments?", fault) is not None
