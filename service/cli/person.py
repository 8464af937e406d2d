"""Says who runs a command, for the records of what it does."""

import argparse

from service.bootstrap.person import person_of
from service.config import Settings
from service.records import Person


def person_at(arguments: argparse.Namespace, settings: Settings) -> Person:
    """Return the person who runs this command, with the command line as `service.cli.main` keeps it."""
    return person_of(arguments.command_line, settings.environment)
