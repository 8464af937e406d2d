"""Parses `auditrace <command>`. Only this file decides exit statuses: 0, 1 (negative answer), 2 (usage or failure)."""

import argparse
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from service.cli.concealment import conceal
from service.cli.output import hold_standard_streams, print_error, print_line
from service.config import without_otel_variables
from service.errors import AuditraceError, RefusedError, SettingsError, TryLaterError
from telemetry.errors import TelemetryError, TelemetrySettingsError

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "run API, worker and relay in one process",
    "work": "run a worker alone",
    "relay": "run a relay alone, or send records again",
    "migrate": "bring the database to the newest schema",
    "copy": "copy the ledger from a SQLite file into an empty PostgreSQL",
    "verify": "verify copies of the ledger",
    "export": "write the records of the database to a file or standard output",
    "keys": "create, list, rotate and revoke keys; print the public key",
    "templates": "check jobs.toml and list its templates",
    "doctor": "check settings, files and ledger; exit 1 when something is wrong",
    "demo": "run four jobs on a real server, and verify its records",
}
"""Each command with its purpose. The module of its name in this folder adds its options and carries it out."""

_PROGRAM: Final = "auditrace"
_TIMES: Final = frozenset({"--since", "--until"})
_AGO: Final = re.compile("-[0-9]+[a-z]+")


class _Version(argparse.Action):
    """Prints the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        # Importing this takes as long as the rest of `--help`.
        from importlib.metadata import version

        print_line(f"auditrace {version('auditrace')}")
        parser.exit()


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; only the module of the chosen command is imported."""
    top = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Job operations with an audit trail that can be trusted and followed.",
        epilog="Settings are environment variables: see docs/configuration.md.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        added = commands.add_parser(name, help=purpose)
        if name == chosen:
            with without_otel_variables():
                module = import_module(f"service.cli.{name}")
            module.add_to(added)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    hold_standard_streams()
    conceal()
    given = _with_times(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = parser(given[0] if given else None).parse_args(given)
        parsed.command_line = (_PROGRAM, *given)
        status: int = parsed.command(parsed)
    except (SettingsError, TelemetrySettingsError) as error:
        return _could_not(error.problems)
    except (RefusedError, TryLaterError) as error:
        return _could_not([error.detail])
    except (AuditraceError, TelemetryError) as error:
        return _could_not([str(error)])
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`).
        return 0
    except OSError as error:
        # Python would exit with 1, which means a negative answer.
        return _could_not([f"{error.filename or 'the working folder'} cannot be used: {error.strerror or error}"])
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - printed with its traceback; Python would exit with 1, a negative answer
        print_error(traceback.format_exc())
        return 2
    return status


def _with_times(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--since -2h` as `--since=-2h`: argparse would take it for two options."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _TIMES and _AGO.fullmatch(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _could_not(problems: Sequence[str]) -> int:
    for problem in problems:
        print_error(f"auditrace: {problem}")
    return 2
