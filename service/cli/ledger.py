"""`auditrace migrate`: bring the database to the newest schema, and mend what a restore of it would break."""

import argparse

from service.bootstrap.databases import database_of
from service.bootstrap.node import open_node
from service.cli.output import print_json, print_line
from service.config import read_settings


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = "Bring the database to the newest schema, without keeping anybody waiting. Forward only."
    parser.add_argument(
        "--after-restore",
        action="store_true",
        help="the database was set back, by a restore from a backup or a failover to a standby that lagged: close "
        "what was open in it and use no number again. Once, before any process is started on it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    settings = read_settings()
    database = database_of(settings.database)
    database.examine()
    if arguments.after_restore:
        database.require()
    database.prepare()
    applied = database.migrate()
    done = None
    if arguments.after_restore:
        with open_node(settings, "cli") as node:
            done = node.checkpoints.restore()
    if arguments.json:
        restored = {} if done is None else {"restored": {"first_checkpoint": done.numbers[0], "closed": done.closed}}
        print_json({"applied": applied, **restored})
        return 0
    print_line("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
    if done is not None:
        print_line(f"closed {len(done.closed)} streams; checkpoints go on with number {done.numbers[0]}")
        print_line("jobs whose runs were lost run again: look them over before you start workers")
    return 0
