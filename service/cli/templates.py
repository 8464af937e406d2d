"""`auditrace templates`: what may run here."""

import argparse
from typing import Any

from service.cli.output import print_json, print_line
from service.config import read_settings
from service.jobs.templates import load_templates


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    top = commands.add_parser("templates", help="check jobs.toml and list what may run")
    top.add_argument("--json", action="store_true", help="print JSON")
    top.set_defaults(command=_templates)


def _templates(arguments: argparse.Namespace) -> int:
    templates = load_templates(read_settings().templates)
    described = [template.describe() for name in templates.names() if (template := templates.get(name))]
    if arguments.json:
        print_json(described)
        return 0
    for shown in described:
        needs = "  (needs a confirmation)" if shown["requires_confirmation"] else ""
        print_line(f"{shown['name']}{needs}\n    {shown['description']}")
    return 0
