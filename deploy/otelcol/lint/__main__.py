"""`python -m deploy.otelcol.lint`: checks the shipped configuration with each of its overlays, or the given files.

Exit status: 0 nothing found, 1 something found, 2 a file that cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.otelcol.lint.files import ConfigurationError, load
from deploy.otelcol.lint.rules import RULES, findings

FOLDER = Path(__file__).resolve().parents[1]
BASE = FOLDER.parents[1] / "otel-collector.yaml"
SMALL, FULL = FOLDER / "builder.yaml", FOLDER / "builder-full.yaml"
OVERLAYS = {"tls": SMALL, "pass-through": SMALL, "kafka": FULL, "s3": FULL}
"""The shipped overlays, each with the manifest of the binary that it needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print each finding and a summary, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.otelcol.lint", description=__doc__)
    parser.add_argument("--rules", action="store_true", help="list the rules and their reasons")
    parser.add_argument("files", nargs="*", type=Path, help="check these files, merged in this order")
    chosen = parser.parse_args(arguments)
    if chosen.rules:
        for rule in RULES:
            _say(f"{rule.id}\n  why: {rule.reason}\n  do:  {rule.remedy}")
        return 0
    named = {" + ".join(map(str, chosen.files)): (chosen.files, FULL)} if chosen.files else shipped()
    found = 0
    try:
        for name, (files, manifest) in named.items():
            for finding in findings(load(files, manifest)):
                _say(f"{name}: {finding}")
                found += 1
    except ConfigurationError as error:
        sys.stderr.write(f"lint: {error}\n")
        return 2
    _say(f"findings: {found}, rules: {len(RULES)}, configurations: {len(named)}")
    return 1 if found else 0


def shipped() -> dict[str, tuple[list[Path], Path]]:
    """Return the shipped configurations by name: their files and the manifest of their binary."""
    return {"base": ([BASE], SMALL)} | {
        name: ([BASE, FOLDER / f"{name}.yaml"], manifest) for name, manifest in OVERLAYS.items()
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
