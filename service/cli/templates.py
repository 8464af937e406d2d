"""`auditrace templates`: check `jobs.toml` and list its templates."""

import argparse

from service.bootstrap.templates import load_templates
from service.cli.output import print_answer
from service.config import read_settings


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_templates)


def _templates(arguments: argparse.Namespace) -> int:
    described = [template.describe() for template in load_templates(read_settings().templates).values()]
    lines: list[str] = []
    for shown in described:
        needs = "  (needs a confirmation)" if shown["requires_confirmation"] else ""
        lines += [f"{shown['name']}{needs}", f"    {shown['description']}"]
    print_answer(arguments, described, lines)
    return 0
