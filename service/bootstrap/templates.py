"""Reads the file of the templates."""

from pathlib import Path

from service.bootstrap.declared import read_declared
from service.jobs.templates import Templates, templates_of


def load_templates(path: Path) -> Templates:
    """Return the templates that the file declares.

    Raises:
        SettingsError: lists every problem of the file, each with its place.
    """
    return read_declared(path, templates_of, "AUDITRACE_TEMPLATES")
