"""Parses `auditrace <command>` and alone decides exit statuses: 0, 1 (negative answer), 2 (usage, or could not)."""

import argparse
import sys
from collections.abc import Sequence

from service.cli import copy, demo, doctor, export, keys, ledger, relay, run, templates, verify
from service.errors import AuditraceError, RefusedError, SettingsError, TryLaterError
from telemetry.errors import TelemetryError

COMMANDS = (run, relay, ledger, copy, verify, export, keys, templates, doctor, demo)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="auditrace",
        description="Job operations with an audit trail that can be trusted and followed.",
        epilog="Settings are environment variables: see docs/configuration.md.",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.command(parsed)
    except SettingsError as error:
        return _could_not(error.problems)
    except (RefusedError, TryLaterError) as error:
        return _could_not([error.detail])
    except (AuditraceError, TelemetryError) as error:
        return _could_not([str(error)])
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return status


def _could_not(problems: Sequence[str]) -> int:
    for problem in problems:
        sys.stderr.write(f"auditrace: {problem}\n")
    return 2
