"""The spine of docs/architecture.md: the files that follow one request from the socket to the archive."""

import ast
import itertools
import re
from collections.abc import Sequence

from tests.support.collector import ROOT

MOST_FILES = 16
_ROW = re.compile(r"^\| `([\w/]+\.py)` \| ([^|]+) \|([^|]*)\|$", re.MULTILINE)


def _spine() -> Sequence[tuple[str, str]]:
    """Return the files of the spine, each with how the next one is reached."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [(file, link.strip().strip("`")) for file, _, link in _ROW.findall(text)]


def _imports(file: str) -> set[str]:
    """Return every module and name that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def test_the_spine_is_short() -> None:
    """A reader opens few files to follow a request, and each of them is there."""
    files = [file for file, _ in _spine()]
    assert 10 < len(files) <= MOST_FILES
    assert all((ROOT / file).is_file() for file in files)


def test_each_file_of_the_spine_leads_to_the_next() -> None:
    """The table says how, and the imports show it: directly, by who puts both together, or by a port."""
    spine = _spine()
    for (file, link), (following, _) in itertools.pairwise(spine):
        if link == "import":
            linked = _module(following) in _imports(file) or _module(file) in _imports(following)
            behind = [_module(other) for other, _ in spine[: spine.index((file, link))]]
            # What is decided with stands beside what decides.
            linked = linked or any(_module(following) in _imports(f"{name.replace('.', '/')}.py") for name in behind)
            assert linked, f"{file} and {following} do not import each other"
        elif link.endswith(".py"):
            put_together = _imports(link) | {_module(link)}
            for one in (file, following):
                package = _module(one).rpartition(".")[0]
                known = {_module(one), package}
                assert any(name == each or name.startswith(f"{each}.") for name in put_together for each in known), one
        elif link.startswith(("service.ports", "telemetry.delivery")):
            assert link in _imports(file) | _imports(following), f"neither knows {link}"
