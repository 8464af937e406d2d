"""The names of types: one name for one type, so that a reader of a name knows what it is."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.support.collector import ROOT


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the classes, `NewType`s and aliases of types that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            yield ast.unparse(node.target)
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("NewType("):
            yield ast.unparse(node.targets[0])


def _files_of_names() -> Mapping[str, Sequence[str]]:
    """Return in which files each public name is defined; a name with an underscore belongs to its file alone."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in ("service", "telemetry"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in _names(ast.parse(path.read_text(encoding="utf-8"))):
                if not name.startswith("_"):
                    found[name].append(str(path.relative_to(ROOT)))
    return found


def test_no_two_public_types_have_one_name() -> None:
    """A class, `NewType` or alias of service or telemetry has a name that no other one has."""
    files = _files_of_names()
    assert len(files) > 100
    twice = {name: where for name, where in files.items() if len(where) > 1}
    assert twice == {}
