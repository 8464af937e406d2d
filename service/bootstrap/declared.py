"""Reads a TOML file in which operators declare something."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.errors import SettingsError

T = TypeVar("T")


def read_declared(path: Path, parse: Callable[[dict[str, object]], T]) -> T:
    """Return what `parse` makes of the content of a file.

    Raises:
        SettingsError: lists every problem of the file, each with its place.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        is_unread = not isinstance(error, FileNotFoundError)
        raise SettingsError([f"{path} cannot be read: {error.strerror}"], is_unread=is_unread) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} is not TOML: {error}"]) from error
    try:
        return parse(content)
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error
