"""Reading a TOML table with all its problems collected, so that an operator mends a file in one go."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Table:
    """One table of the file; `problems` is shared by all tables of it."""

    def __init__(self, place: str, content: Mapping[str, object], problems: list[str]) -> None:
        self.place = place
        self._content = content
        self._problems = problems

    @classmethod
    def of(cls, place: str, content: object, problems: list[str]) -> "Table":
        """Return `content` as a table; anything else is a problem and reads as an empty one."""
        try:
            return cls(place, msgspec.convert(content, dict[str, object]), problems)
        except msgspec.ValidationError:
            problems.append(f"{place} must be a table")
            return cls(place, {}, problems)

    def complain(self, key: str, problem: str) -> None:
        """Note what is wrong with the value of `key`."""
        self._problems.append(f"{self.place}.{key}: {problem}")

    def allow(self, keys: Collection[str], why: str = "") -> None:
        """Note every key that is not one of `keys`."""
        for key in self._content:
            if key not in keys:
                self.complain(key, f"unknown key{why}; allowed: {', '.join(keys)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The keys in the order of the file."""
        return tuple(self._content)

    def has(self, key: str) -> bool:
        """True when the key is there, whatever its value."""
        return key in self._content

    def raw(self, key: str) -> object:
        """Return the value as it stands; None when it is absent."""
        return self._content.get(key)

    def take(self, key: str, kind: type[T], default: T) -> T:
        """Return the value when it has the type `kind`; `default` when it is absent or wrong."""
        if key not in self._content:
            return default
        try:
            return msgspec.convert(self._content[key], kind)
        except msgspec.ValidationError as error:
            self.complain(key, str(error))
            return default

    def require(self, key: str, kind: type[T], fallback: T) -> T:
        """The same for a key that must be there; `fallback` only keeps the reading going."""
        if key not in self._content:
            self.complain(key, "is required")
        return self.take(key, kind, fallback)

    def parsed(self, key: str, default: str, parse: Callable[[str], int], low: int, high: int) -> int:
        """Return a duration or size within bounds (in the unit of `parse`), written as text."""
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
        """Return a table within this one; an absent one is empty."""
        return Table.of(f"{self.place}.{key}" if self.place else key, self._content.get(key, {}), self._problems)
