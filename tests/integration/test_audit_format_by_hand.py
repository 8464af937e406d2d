"""The commands of docs/audit-format.md, run as a reader would run them."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "audit-format.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the document's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_document_print_what_it_says(tmp_path: Path) -> None:
    """Every command in the section "By hand" prints exactly the lines that the document shows below it."""
    (definition,) = blocks("sh")
    steps = [step for block in blocks("console") for step in re.split(r"^\$ ", block, flags=re.MULTILINE) if step]
    assert len(steps) > 10
    for step in steps:
        command, _, expected = step.partition("\n")
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{definition}\n{command}"],
            cwd=ROOT / "tests" / "vectors",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "FOLDER": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout == expected, command
