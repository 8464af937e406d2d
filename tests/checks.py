"""Checks that generated parts of the repository are what their sources make of them: `python -m tests.checks`.

With `--write` they are made anew. The registry has a check of its own (`telemetry.registry.generate --check`).
"""

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from service.cli.main import parser
from service.config import variables
from service.store.sqlite.connection import connect, create
from service.store.sqlite.migrate import migrate

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCHEMA = ROOT / "docs" / "sqlite-schema.sql"
SETTINGS = ROOT / "docs" / "configuration.md"

_HELP = re.compile(r"(```text\n\$ auditrace --help\n)(.*?)(```)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_TARGET = re.compile(r"(?:`|\$ )make ([a-z][a-z-]*)")
_PATH = re.compile(r"`((?:deploy|docs|service|telemetry|tests)/[\w./-]+)`")
_SETTING = re.compile(r"AUDITRACE_[A-Z_]+")


def readme() -> str:
    """The README with the help text of the command line as it is."""
    text = README.read_text(encoding="utf-8")
    if not _HELP.search(text):
        raise ValueError("README.md has no block that begins with `$ auditrace --help`")
    # Otherwise as wide as the terminal of whoever checks.
    os.environ["COLUMNS"] = "80"  # noqa: TID251 - read by argparse
    shown = parser().format_help()
    return _HELP.sub(lambda found: found[1] + shown + found[3], text)


def schema() -> str:
    """The schema that all migrations together make, as SQLite tells it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "empty.db")
        create(path)
        with closing(connect(path)) as connection:
            migrate(connection)
            rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    statements = "".join(f"\n{sql};\n" for (sql,) in rows)
    return f"-- The sum of all migrations, to read; written by `python -m tests.checks --write`.\n{statements}"


GENERATED: Mapping[Path, Callable[[], str]] = {README: readme, SCHEMA: schema}


def undocumented() -> list[str]:
    """The settings that the service reads and the table of docs/configuration.md lacks, and the other way round."""
    read = set(variables())
    rows = [row.split("|")[1] for row in SETTINGS.read_text(encoding="utf-8").splitlines() if row.startswith("| `A")]
    documented = {name for row in rows for name in _SETTING.findall(_spelled_out(row))}
    return [f"{name} is read and not documented in docs/configuration.md" for name in sorted(read - documented)] + [
        f"{name} is documented in docs/configuration.md and never read" for name in sorted(documented - read)
    ]


def broken_references() -> list[str]:
    """What documents link to, name as a path or tell to make, and that is not there."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    problems: list[str] = []
    for document in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]):
        text, name = document.read_text(encoding="utf-8"), document.relative_to(ROOT)
        problems += [
            f"{name} links to {target}, which is not there"
            for target in _LINK.findall(text)
            if "://" not in target and not (document.parent / target).exists()
        ]
        problems += [
            f"{name} names {path}, which is not there" for path in _PATH.findall(text) if not (ROOT / path).exists()
        ]
        problems += [
            f"{name} says `make {target}`, which is no target" for target in set(_TARGET.findall(text)) - targets
        ]
    return problems


def started_elsewhere() -> list[str]:
    """The tests that start a process that runs on without `tests/support/processes.py`, which ends it with them."""
    return [
        f"{path.relative_to(ROOT)} starts a process by itself: use start_process of tests/support/processes.py"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if "subprocess.Popen(" in path.read_text(encoding="utf-8") and path != Path(__file__)
    ]


def _spelled_out(text: str) -> str:
    """Write abbreviated names in full: `AUDITRACE_JWT_ISSUER`, `_JWKS` stands for two of one prefix."""
    return re.sub(
        r"`(AUDITRACE_[A-Z]+)(_[A-Z_]+)`((?:, `_[A-Z_]+`)+)",
        lambda found: f"`{found[1]}{found[2]}`" + found[3].replace("`_", f"`{found[1]}_"),
        text,
    )


def main(arguments: list[str]) -> int:
    """Check, or with `--write` write, what is generated; returns the exit status."""
    problems = [*undocumented(), *broken_references(), *started_elsewhere()]
    for path, render in GENERATED.items():
        made = render()
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if made == found:
            continue
        if "--write" in arguments:
            path.write_text(made, encoding="utf-8")
            continue
        problems += difflib.unified_diff(
            found.splitlines(), made.splitlines(), f"{path.name} (committed)", f"{path.name} (made)", lineterm=""
        )
        problems.append(f"{path.relative_to(ROOT)} is out of date: run `python -m tests.checks --write`")
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
