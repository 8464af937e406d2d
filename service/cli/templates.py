"""`auditrace templates`: what may run here."""

import argparse

from service.cli.output import print_json, print_line
from service.config import read_settings
from service.jobs.templates import load_templates


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_templates)


def _templates(arguments: argparse.Namespace) -> int:
    described = [template.describe() for template in load_templates(read_settings().templates).values()]
    if arguments.json:
        print_json(described)
        return 0
    for shown in described:
        needs = "  (needs a confirmation)" if shown["requires_confirmation"] else ""
        print_line(f"{shown['name']}{needs}\n    {shown['description']}")
    return 0
