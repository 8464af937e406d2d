"""`auditrace copy`: copy a ledger from a SQLite file into a PostgreSQL database."""

import argparse

from service.bootstrap.copying import copied_by
from service.cli.invocation import invocation_at
from service.cli.output import print_answer, print_line, table
from service.config import read_settings


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Copy the ledger from a SQLite file into an empty PostgreSQL database: all of it, or nothing. First stop every "
        "process that uses the file. Before the commit both sides are verified, and compared row by row. The file gets "
        "a record of the copy, and stays as it is otherwise. Start no process on it again."
    )
    parser.add_argument("--from", dest="source", required=True, metavar="URL", help="sqlite:///path")
    parser.add_argument("--to", dest="target", required=True, metavar="URL", help="postgresql://…")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_copy)


def _copy(arguments: argparse.Namespace) -> int:
    settings = read_settings()

    def note(step: str) -> None:
        if not arguments.json:
            print_line(step)

    done = copied_by(invocation_at(arguments, settings), settings, arguments.source, arguments.target, note)
    rows = table(("TABLE", "ROWS"), [(name, str(count)) for name, count in done.rows.items()])
    end = "both verify and are the same: set AUDITRACE_DATABASE to the target, and put the file away"
    print_answer(arguments, done, [*rows, end])
    return 0
