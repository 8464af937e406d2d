"""Reads a TOML file in which operators declare something."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.errors import SettingsError
from telemetry.files import read_regular

T = TypeVar("T")


def read_declared(path: Path, parse: Callable[[dict[str, object]], T], named_by: str) -> T:
    """Return what `parse` makes of the content of the file that the setting `named_by` names.

    Raises:
        SettingsError: lists every problem of the file, each with its place.
    """
    try:
        content = tomllib.loads(read_regular(path).decode())
    except OSError as error:
        is_unread = not isinstance(error, FileNotFoundError)
        raise SettingsError([f"{path} cannot be read: {error.strerror} ({named_by})"], is_unread=is_unread) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} is not TOML: {error}"]) from error
    try:
        return parse(content)
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error
