"""`auditrace copy`: move a ledger from a file into a PostgreSQL."""

import argparse

from service.bootstrap.copying import copied
from service.cli.output import print_json, print_line, print_table
from service.config import read_settings
from service.keyfiles import deployment_secret
from service.secrets import DeploymentSecret


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Move the ledger from a file into an empty PostgreSQL: all of it, or nothing. Every process that works on the "
        "file is to be stopped before. Both sides are verified, and compared row by row, before anything is committed. "
        "The file stays as it is; start no process on it any more."
    )
    parser.add_argument("--from", dest="source", required=True, metavar="URL", help="sqlite:///path")
    parser.add_argument("--to", dest="target", required=True, metavar="URL", help="postgresql://…")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_copy)


def _copy(arguments: argparse.Namespace) -> int:
    settings = read_settings()

    def secret() -> DeploymentSecret:
        return deployment_secret(settings.ledger_secret, may_create=False)

    def note(step: str) -> None:
        if not arguments.json:
            print_line(step)

    done = copied(arguments.source, arguments.target, secret, note)
    if arguments.json:
        print_json(done)
    else:
        print_table(("TABLE", "ROWS"), [(table, str(count)) for table, count in done.rows.items()])
        print_line("both verify and are the same: set AUDITRACE_DATABASE to the target, and put the file away")
    return 0
