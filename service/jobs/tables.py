"""Reads TOML tables and collects all their problems, so that an operator can correct a file at once."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import msgspec

from service.jobs.texts import unfit_character

T = TypeVar("T")


class Table:
    """One table of a file; all tables of the file share `problems`."""

    def __init__(self, place: str, content: Mapping[str, object], problems: list[str]) -> None:
        self.place = place
        self._content = content
        self._problems = problems

    @classmethod
    def of(cls, place: str, content: object, problems: list[str]) -> "Table":
        """Return `content` as a table; any other content is a problem, and the table is empty."""
        try:
            return cls(place, msgspec.convert(content, dict[str, object]), problems)
        except msgspec.ValidationError:
            problems.append(f"{place} must be a table")
            return cls(place, {}, problems)

    def complain(self, key: str, problem: str) -> None:
        """Add a problem with the value of `key`."""
        self._problems.append(f"{self.place}.{key}: {problem}")

    def require_seen(self, key: str, text: str, what: str = "", *, line_breaks: bool = True) -> None:
        """Add a problem with the value of `key` if `text`, which is a part of it, holds what nobody can see.

        `what` says which part it is.
        """
        unfit = unfit_character(text, line_breaks=line_breaks)
        if unfit is not None:
            self.complain(key, f"{what} holds {unfit}, which is a control character or cannot be seen".lstrip())

    def allow(self, keys: Collection[str], why: str = "") -> None:
        """Add a problem for every key that is not one of `keys`."""
        for key in self._content:
            if key not in keys:
                self.complain(key, f"unknown key{why}; allowed: {', '.join(keys)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The keys in the order of the file."""
        return tuple(self._content)

    def has(self, key: str) -> bool:
        """Return whether the key is there, with any value."""
        return key in self._content

    def raw(self, key: str) -> object:
        """Return the value as it was read; None when it is absent."""
        return self._content.get(key)

    def take(self, key: str, kind: type[T], default: T) -> T:
        """Return the value if it has the type `kind`; `default` if it is absent or wrong."""
        if key not in self._content:
            return default
        try:
            return msgspec.convert(self._content[key], kind)
        except msgspec.ValidationError as error:
            self.complain(key, str(error))
            return default

    def require(self, key: str, kind: type[T], fallback: T) -> T:
        """Return the value of a key that must be there; `fallback` if it is absent or wrong, to continue reading."""
        if key not in self._content:
            self.complain(key, "is required")
        return self.take(key, kind, fallback)

    def parsed(self, key: str, default: str, parse: Callable[[str], int], low: int, high: int) -> int:
        """Return a duration or size that is written as text; bounds and result are in the unit of `parse`."""
        text = self.take(key, str, default)
        try:
            value = parse(text)
        except ValueError as error:
            self.complain(key, str(error))
            return parse(default)
        return self._bounded(key, value, low, high, parse(default))

    def number(self, key: str, default: int, low: int, high: int) -> int:
        """Return an integer within bounds."""
        return self._bounded(key, self.take(key, int, default), low, high, default)

    def _bounded(self, key: str, value: int, low: int, high: int, default: int) -> int:
        if low <= value <= high:
            return value
        self.complain(key, f"must be from {low} to {high}, not {value}")
        return default

    def table(self, key: str) -> "Table":
        """Return a table within this one; an absent table is empty."""
        return Table.of(f"{self.place}.{key}" if self.place else key, self._content.get(key, {}), self._problems)
