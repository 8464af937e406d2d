"""Parses texts of the command line so that all wrong ones are reported together."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import SettingsError

T = TypeVar("T")
X = TypeVar("X")


def parsed(parse: Callable[[X], T], text: X | None, option: str, problems: list[str]) -> T | None:
    """Return the value of an option; None, with a problem added, when `parse` raises ValueError."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        problems.append(f"{option}: {error}")
        return None


def require_none(problems: Sequence[str]) -> None:
    """Raise SettingsError when there are problems."""
    if problems:
        raise SettingsError(problems)
