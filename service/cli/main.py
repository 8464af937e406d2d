"""Parses `auditrace <command>` and alone decides exit statuses: 0, 1 (negative answer), 2 (usage, or could not)."""

import argparse
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from service.cli.output import hold_standard_streams, print_error, print_line
from service.config import without_otel_variables
from service.errors import AuditraceError, RefusedError, SettingsError, TryLaterError
from telemetry.errors import TelemetryError, TelemetrySettingsError


class Command(NamedTuple):
    """A command: its name, what it is for, and the module and function that add what it takes to its parser."""

    name: str
    purpose: str
    module: str
    add: str = "add_to"


COMMANDS: Final = (
    Command("serve", "API, worker and relay in one process", "run", "add_serve_to"),
    Command("work", "a worker alone", "run", "add_work_to"),
    Command("relay", "a relay alone, or send records again", "relay"),
    Command("migrate", "bring the database to the newest schema", "ledger"),
    Command("copy", "move the ledger from a file into an empty PostgreSQL", "copy"),
    Command("verify", "verify copies of the ledger", "verify"),
    Command("export", "hand out the records of the database", "export"),
    Command("keys", "create, list and revoke API keys; print the public key", "keys"),
    Command("templates", "check jobs.toml and list what may run", "templates"),
    Command("doctor", "look over settings, files and ledger; exit 1 when something is wrong", "doctor"),
    Command("demo", "tell the story of three jobs against a real server, and verify its records", "demo"),
)

_TIMES: Final = frozenset({"--since", "--until"})
_AGO: Final = re.compile("-[0-9]+[a-z]+")


class _Version(argparse.Action):
    """Prints the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        # Loading this takes as long as all the rest of `--help`.
        from importlib.metadata import version

        print_line(f"auditrace {version('auditrace')}")
        parser.exit()


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; only the chosen command's own module is imported."""
    top = argparse.ArgumentParser(
        prog="auditrace",
        description="Job operations with an audit trail that can be trusted and followed.",
        epilog="Settings are environment variables: see docs/configuration.md.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.purpose)
        if command.name == chosen:
            with without_otel_variables():
                module = import_module(f"service.cli.{command.module}")
            getattr(module, command.add)(added)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    hold_standard_streams()
    given = _with_times(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = parser(given[0] if given else None).parse_args(given)
        status: int = parsed.command(parsed)
    except (SettingsError, TelemetrySettingsError) as error:
        return _could_not(error.problems)
    except (RefusedError, TryLaterError) as error:
        return _could_not([error.detail])
    except (AuditraceError, TelemetryError) as error:
        return _could_not([str(error)])
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has seen enough.
        return 0
    except OSError as error:
        # Python would end with 1, which is a negative answer.
        return _could_not([f"{error.filename or 'the working folder'} cannot be used: {error.strerror or error}"])
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - shown whole; Python would end with 1, which is a negative answer
        traceback.print_exc()
        return 2
    return status


def _with_times(arguments: Sequence[str]) -> list[str]:
    """Return them with `--since -2h` as `--since=-2h`, which argparse would take for two options."""
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
