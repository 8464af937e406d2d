"""Says who runs a command, for the records of what it does."""

import argparse

from service.bootstrap.invocation import invocation_of
from service.config import Settings
from service.records import Invocation


def invocation_at(arguments: argparse.Namespace, settings: Settings) -> Invocation:
    """Return the person who runs this command, with the command line as `service.cli.main` keeps it."""
    return invocation_of(arguments.command_line, settings.environment)
