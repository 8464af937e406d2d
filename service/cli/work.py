"""`auditrace work`: a worker alone."""

import argparse

from service.cli.output import say_line
from service.config import examine_settings
from service.processes.alone import work


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options: there are none."""
    parser.set_defaults(command=_work)


def _work(_: argparse.Namespace) -> int:
    return work(examine_settings(), say_line)
