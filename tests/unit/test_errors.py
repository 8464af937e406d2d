"""The trees of errors: each class has an error type of its own, a place in its module's drawing, and an HTTP status."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import service.errors
import telemetry.errors
from service.api.problems import STATUSES, status_of
from service.errors import AuditraceError, RefusedError, TryLaterError
from telemetry.errors import TelemetryError

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
TREES = {AuditraceError: service.errors, TelemetryError: telemetry.errors}


def _below(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from _below(child)


CLASSES = [cls for root in TREES for cls in _below(root)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_a_type_of_its_own(cls: type[Exception]) -> None:
    """`error_type` is set on the class itself, is low in cardinality, and belongs to no other class."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", vars(cls)["error_type"])
    assert [other for other in CLASSES if vars(other)["error_type"] == vars(cls)["error_type"]] == [cls]
    assert cls.__name__.endswith("Error")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_mapped_to_http(cls: type[Exception]) -> None:
    """Each class has a status and a title: what is refused is 4xx, what may pass is 503, what is broken is 500."""
    status, title = STATUSES[cls]
    assert title
    if issubclass(cls, RefusedError):
        assert 400 <= status < 500
    else:
        assert status == (503 if issubclass(cls, TryLaterError) else 500)


def test_nothing_else_is_mapped() -> None:
    """The table holds the classes of the trees and no leftovers."""
    assert set(STATUSES) == set(CLASSES)


@pytest.mark.parametrize("root", TREES, ids=lambda cls: cls.__name__)
def test_the_drawing_of_a_tree_is_the_tree(root: type[Exception]) -> None:
    """The docstring of the module draws every class below its parent, and none that is not there."""
    assert _drawn(TREES[root]) == {cls.__name__: _parent(cls) for cls in _below(root)}


def test_all_errors_live_in_their_module() -> None:
    """No class of a tree is declared elsewhere, where its drawing and its status would be forgotten."""
    for root, module in TREES.items():
        assert {cls.__module__ for cls in _below(root)} == {module.__name__}


def test_a_status_drawn_beside_a_class_is_its_status() -> None:
    """Where the drawing names an HTTP status, clients get it; a class without one has its parent's."""
    for line in _tree(service.errors):
        match = re.search(r"(\w+Error)\s+(4\d\d|503)\b", line)
        if match is not None:
            assert STATUSES[getattr(service.errors, match[1])][0] == int(match[2]), line


def test_the_errors_of_clients_are_explained() -> None:
    """The API's page names the error type of every refusal and every 503, beside its status."""
    rows = [line.split("|") for line in API_PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)]
    explained = {error_type: row[1].split(",") for row in rows for error_type in re.findall(r"`(\w+)`", row[2])}
    for cls in CLASSES:
        if issubclass(cls, RefusedError | TryLaterError):
            assert str(STATUSES[cls][0]) in map(str.strip, explained[vars(cls)["error_type"]]), cls


def test_an_unknown_exception_is_an_internal_error() -> None:
    """What is in no tree is 500 under one error type; the class of a stranger's exception is not told."""
    assert status_of(KeyError("password")) == (500, "Internal error", "internal_error")


def _parent(cls: type[Exception]) -> str | None:
    parent = cls.__bases__[0]
    return None if parent is Exception else parent.__name__


def _tree(module: ModuleType) -> list[str]:
    text = inspect.getdoc(module) or ""
    return [line for line in text.splitlines() if re.match(r"[│ ]*[├└]── ", line) or re.fullmatch(r"\w+Error", line)]


def _drawn(module: ModuleType) -> dict[str, str | None]:
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in _tree(module):
        name = re.search(r"\w+Error", line)
        assert name is not None
        depth = name.start() // 4
        path = [*path[:depth], name[0]]
        parents[name[0]] = path[-2] if depth else None
    return parents
