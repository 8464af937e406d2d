"""The regular expressions of the service and of telemetry: no text from outside makes one of them slow."""

import importlib
import pkgutil
import re
import signal
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import pytest

import service
import telemetry
from tests.support.collector import ROOT

LENGTH = 30_000
CPU_S = 3.0
"""So much processor time is allowed for all texts of one pattern: what is linear takes far less, a square far more."""

EXEMPT = {
    "service.bootstrap.command_args": "it reads the arguments of the own process, which its operator gave",
    "telemetry.audit.verify.record.fast_path": "it reads bodies that were decoded as JSON before",
}
UNITS = (
    "a",
    "0",
    " ",
    "-",
    "a-",
    "0:",
    '"a',
    '\\"',
    "://",
    "://a:",
    "a=",
    "a@",
    "{a}",
    ",a=",
    "\U00010000",
    "\u0645",
    "[",
    ":",
)


def _patterns() -> Iterator[tuple[str, str, re.Pattern[Any]]]:
    for package in (service, telemetry):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or found.name in EXEMPT:
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                for each in _within(value):
                    yield found.name, name, each


def _within(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, Mapping | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _within(inner)


def _uses(module: str, name: str) -> set[str]:
    """Return the methods by which a pattern is used; fullmatch when it is used under another name."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = set(re.findall(rf"\b{name}\.(\w+)\(", text)) & {"match", "search", "sub", "finditer", "findall", "split"}
    return {"match": {"match"}}.get("".join(found), {"search"} if found else {"fullmatch"})


def _expired(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


PATTERNS = {(module, name): pattern for module, name, pattern in _patterns() if pattern.pattern}


@pytest.mark.parametrize(("module", "name"), sorted(PATTERNS))
def test_no_text_makes_a_pattern_of_the_service_slow(module: str, name: str) -> None:
    """Long texts of one repeated part, with an end that does not fit, for every pattern as it is used."""
    pattern = PATTERNS[module, name]
    own = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    units = dict.fromkeys([*UNITS, *(one for one in own if one.isprintable())])
    before = signal.signal(signal.SIGVTALRM, _expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        for unit in units:
            text: Any = unit * (LENGTH // len(unit)) + "\x00"
            text = text.encode() if isinstance(pattern.pattern, bytes) else text
            for method in _uses(module, name):
                getattr(pattern, method)(text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
