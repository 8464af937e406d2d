"""Reads the file of the templates."""

import tomllib
from pathlib import Path

from service.errors import SettingsError
from service.jobs.templates import Templates, templates_of


def load_templates(path: Path) -> Templates:
    """Return the templates that the file declares.

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
        return templates_of(content)
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error
