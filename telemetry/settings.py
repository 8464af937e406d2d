"""Reads settings from environment variables, and collects all problems with them before anything starts."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

from telemetry.errors import TelemetrySettingsError
from telemetry.files import unreadable

T = TypeVar("T")

_MOST_DIGITS: Final = 18


class SettingsReader:
    """Reads variables one by one.

    An empty variable counts as not set. White space around the value of an `OTEL_*` variable is ignored, so that a
    blank one is not set either, as in the OpenTelemetry specification. Other values are used unchanged.

    For a wrong value the default is returned, and the problem is kept.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[str] = []
        self.unread = 0
        """How many of the problems are about files that exist and could not be read."""
        self.known: set[str] = set()
        """The names of all variables that were asked for."""

    def find(self, *names: str) -> tuple[str, str] | None:
        """Return name and value of the first of these variables that is set."""
        self.known.update(names)
        for name in names:
            value = self.environment.get(name, "")
            if name.startswith("OTEL_"):
                value = value.strip()
            if value:
                return name, value
        return None

    def get(self, name: str) -> str | None:
        """Return the value of a variable, None when it is not set."""
        found = self.find(name)
        return found[1] if found else None

    def text(self, name: str, default: str) -> str:
        """Return the value of a variable, or its default."""
        return self.get(name) or default

    def path(self, name: str) -> Path | None:
        """Return the path that a variable names, None when it is not set."""
        text = self.get(name)
        return Path(text) if text else None

    def file(self, *names: str) -> Path | None:
        """Return the file that the first set variable names; a file that cannot be read is a problem."""
        found = self.find(*names)
        return None if found is None else self.existing(found[0], Path(found[1]))

    def existing(self, name: str, path: Path) -> Path:
        """Return the path; if there is no file that can be read, that is a problem."""
        found = unreadable(path)
        if found is not None:
            is_new = self.add(f"{name}: {found.why}")
            self.unread += is_new and not found.is_missing
        return path

    def parsed(
        self, names: str | tuple[str, ...], default: T, parse: Callable[[str], T], instead: T | None = None
    ) -> T:
        """Return the parsed value of the first variable that is set; for a wrong value, return `instead`.

        Args:
            names: the more specific names first.
            default: the value when no variable is set.
            parse: raises `ValueError`, which says what is wrong.
            instead: used while the remaining settings are read; None is the default.
        """
        found = self.find(*([names] if isinstance(names, str) else names))
        if found is None:
            return default
        try:
            return parse(found[1])
        except ValueError as error:
            self.add(f"{found[0]}: {error}")
            return default if instead is None else instead

    def number(self, name: str, default: int, low: int, high: int, instead: int | None = None) -> int:
        """Return a whole number from `low` to `high`."""

        def parse(text: str) -> int:
            is_whole = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
            if not (is_whole and low <= int(text) <= high):
                raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
            return int(text)

        return self.parsed(name, default, parse, instead)

    def choice(self, names: str | tuple[str, ...], default: str, choices: Collection[str]) -> str:
        """Return a value that must be one of `choices`."""

        def parse(text: str) -> str:
            if text not in choices:
                raise ValueError(f"{text!r} is none of {', '.join(choices)}")
            return text

        return self.parsed(names, default, parse)

    def checked(self, settle: Callable[[], T]) -> T | None:
        """Return the result of `settle`; if it raises because settings are wrong, keep the problems and return None."""
        try:
            return settle()
        except TelemetrySettingsError as error:
            for problem in error.problems:
                self.add(problem)
            return None

    def add(self, problem: str) -> bool:
        """Keep a problem once, because one variable may be read for several purposes; True when it is new."""
        is_new = problem not in self.problems
        if is_new:
            self.problems.append(problem)
        return is_new
